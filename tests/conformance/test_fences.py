"""A stale owner's writes change nothing, whatever they are (I2, S-261 to S-273): its epoch, or its row version, is old."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from conformance.test_interrupted import busy, commit_again, commit_end, commit_result, commit_turn, set_aside, stored
from conformance.world import NOW, World, in_world
from durabletask_sql.model.checkpoints import Discard
from durabletask_sql.model.status import Status
from tables import rows


async def discard(w: World) -> Callable[[], Awaitable[object]]:
    held = tuple(one.seq for one in await w.queue("one"))
    return lambda: w.commit(Discard(w.key("one"), held))


@pytest.mark.parametrize("write", [commit_turn, commit_end, commit_again, set_aside, discard], ids=lambda one: one.__name__)
def test_an_owners_write_is_refused_after_the_partition_was_retaken(database_url, write):
    async def test(w: World):
        await busy(w)
        done = await write(w)
        await w.leases.raise_epochs(w.host.host_id, w.epochs)
        before = await stored(w)
        committed = await done()
        assert [outcome.kind.value for outcome in committed.outcomes] == ["lost"]
        assert await stored(w) == before

    in_world(database_url, test)


@pytest.mark.parametrize("write", [commit_turn, commit_end, commit_again], ids=lambda one: one.__name__)
def test_a_turn_is_refused_after_another_has_changed_its_instance(database_url, write):
    async def test(w: World):
        await busy(w)
        done = await write(w)
        row = await w.read("one")
        await w.commit(w.turn(row))
        before = await stored(w)
        assert [outcome.kind.value for outcome in (await done()).outcomes] == ["lost"]
        assert await stored(w) == before

    in_world(database_url, test)


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.RUNNING])
def test_a_turn_is_refused_after_its_instance_was_ended_and_made_anew(database_url, status):
    async def test(w: World):
        await busy(w)
        done = await commit_turn(w)
        await w.instances.terminate_now([w.key("one")], None, NOW)
        if status is Status.RUNNING:
            await w.create("one")
        before = await stored(w)
        assert [outcome.kind.value for outcome in (await done()).outcomes] == ["lost"]
        assert await stored(w) == before

    in_world(database_url, test)


def test_a_result_is_refused_after_the_claim_was_retaken(database_url):
    async def test(w: World):
        await busy(w)
        token = rows(w.url, "SELECT token FROM activity_queue ORDER BY seq")[0][0]
        done = await commit_result(w)
        second = replace(w.host, host_id=w.host.host_id + 1)
        await w.leases.register(second, 12)
        await w.committer.release_claims(w.host.host_id, [token])
        before = await stored(w)
        assert [outcome.kind.value for outcome in (await done()).outcomes] == ["lost"]
        assert await stored(w) == before

    in_world(database_url, test)
