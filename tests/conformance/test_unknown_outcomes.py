"""A connection that is cut around COMMIT (I2): nothing is lost, nothing is doubled."""

from __future__ import annotations

import asyncio

import pytest

from conformance.world import World, in_world
from durabletask_sql.errors import OutcomeUnknownError
from durabletask_sql.model.checkpoints import OutcomeKind
from proxy import CommitCutter

WHEN = pytest.mark.parametrize("when", ["before", "after"])


@pytest.fixture
def cutter(postgres_url):
    proxy = CommitCutter(postgres_url)
    yield proxy
    proxy.close()


@WHEN
def test_a_groups_outcome_is_unknown_and_raising_the_epoch_brings_the_truth(cutter, when):
    async def test(w: World):
        row = await w.created("one")
        cutter.arm(when)
        with pytest.raises(OutcomeUnknownError):
            await w.commit(w.turn(row))
        w.epochs = dict(await w.leases.raise_epochs(w.host.host_id, w.epochs))
        fresh = (await w.load(fresh=(row.key,))).fresh[0]
        assert fresh.row.row_version == (2 if when == "after" else 1)
        assert len(fresh.history) == fresh.row.history_count
        committed = await w.commit(w.turn(fresh.row))
        assert committed.outcomes[0].kind is OutcomeKind.COMMITTED
        assert cutter.cuts == 1

    in_world(cutter.url, test)


@WHEN
def test_a_creation_is_settled(cutter, when):
    async def test(w: World):
        await w.created("warm-up")
        cutter.arm(when)
        created = await w.create("one")
        assert created.decision.value == "create"
        assert (await w.read("one")).generation == 0
        assert len(await w.queue("one")) == 1
        assert cutter.cuts == 1

    in_world(cutter.url, test)


def test_an_event_whose_commit_was_cut_is_there_exactly_once(cutter):
    """SEND is a statement in a transaction with its id; each cut is settled by that id."""
    async def test(w: World):
        await w.created("one")
        await w.queue("one")
        for number in range(6):
            cutter.arm("before" if number % 2 else "after")
            await w.instances.send(w.message("one", b"\x1a\x02\x08%c" % number))
        claimed = (await w.load(claims=(w.key("one"),))).claimed
        assert [row.events[-1] for row in claimed] == list(range(6))
        assert cutter.cuts == 6

    in_world(cutter.url, test)


def test_many_cuts_under_concurrent_clients_lose_and_double_nothing(cutter):
    async def test(w: World):
        await w.created("one")
        await w.queue("one")

        async def send(first: int) -> None:
            for number in range(first, first + 20):
                await w.instances.send(w.message("one", b"\x1a\x02\x08%c" % number))

        async def cut() -> None:
            while cutter.cuts < 8:
                cutter.arm("after" if cutter.cuts % 2 else "before")
                await asyncio.sleep(0.01)

        cutting = asyncio.create_task(cut())
        await asyncio.gather(send(0), send(20), send(40))
        cutting.cancel()
        claimed = (await w.load(claims=(w.key("one"),))).claimed
        assert sorted(row.events[-1] for row in claimed) == list(range(60))
        for first in (0, 20, 40):
            mine = [row.events[-1] for row in claimed if first <= row.events[-1] < first + 20]
            assert mine == sorted(mine)

    in_world(cutter.url, test)
