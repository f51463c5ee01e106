"""What meets a bug of the host, or is damaged, is tried a few times and set aside; everything else goes on."""

from __future__ import annotations

import asyncio
import logging

import pytest

from dispatch.bench import Worker, finish, on_bench, schedule
from dispatch.test_poison import aside
from durabletask_sql.dispatch import activities, entities, owner, turns
from durabletask_sql.ids import partition_of
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import MessageKind, NewMessage
from durabletask_sql.model.quarantine import AsideKind
from durabletask_sql.partitions.suspects import COUNTED_FAILURES
from durabletask_sql.service.abstraction import Signal
from durabletask_sql.storage import committer, planning
from durabletask_sql.storage.instances import SqlInstances

BUG = "a bug of this host, ZeroDivisionError"


@pytest.fixture(autouse=True)
def no_delays(monkeypatch):
    for module in ("delays", "activities"):
        monkeypatch.setattr(f"durabletask_sql.dispatch.{module}.delay_seconds", lambda _: 0.0)


@pytest.fixture
def tracebacks(caplog):
    """What was logged with a traceback."""
    with caplog.at_level(logging.ERROR, "durabletask_sql"):
        yield lambda: [record for record in caplog.records if record.exc_info]


def breaking(monkeypatch, module, name, is_broken):
    """Have a function of a module divide by zero for some of what it is given."""
    works = getattr(module, name)

    def called(*given):
        return 1 // 0 if is_broken(*given) else works(*given)

    monkeypatch.setattr(module, name, called)


class Breaking(Worker):
    """A worker to which some items cannot be offered."""

    def offer_turn(self, item):
        self._break(item.key.instance_id == "bad")
        super().offer_turn(item)

    def offer_activity(self, item):
        self._break(item.row.name == "bad")
        super().offer_activity(item)

    def offer_entity(self, item):
        self._break(item.key.instance_id == "@bad@a")
        super().offer_entity(item)

    @staticmethod
    def _break(is_bad) -> None:
        if is_bad:
            raise ZeroDivisionError


def in_time(url, test):
    """Run a test on a bench; it ends in time, whatever is stuck."""
    async def limited(bench):
        async with asyncio.timeout(30):
            await test(bench)

    on_bench(url, limited)


async def an_item(bench):
    (item,) = await aside(bench)
    return item.kind, item.key.instance_id, item.attempts, item.cause.partition(":")[0]


async def run_turns(bench, worker):
    """Start a good instance behind each of those that are bad, and answer until the bad one is set aside."""
    for name in ("before", "bad", "behind"):
        await bench.start("flow", name)
    while not await aside(bench) or {await bench.status(name) for name in ("before", "behind")} != {"COMPLETED"}:
        while not worker.turns.empty():
            await bench.answer(await worker.turn(), finish())
        await asyncio.sleep(0.002)


async def run_activities(bench, worker):
    await bench.start("flow", "one")
    await bench.answer(await worker.turn(), *schedule("act", "bad", "act"))
    done = 0
    while done < 2 or not await aside(bench):
        while not worker.activities.empty():
            item = await worker.activity()
            done += item.row.name == "act"
            await bench.result(item)
        while not worker.turns.empty():
            await bench.answer(await worker.turn())
        await asyncio.sleep(0.002)


async def run_entities(bench, worker):
    for name in ("@fine@a", "@bad@a", "@fine@b"):
        await bench.entities.signal(Signal(name, "go"))
    ran = set()
    while ran < {"@fine@a", "@fine@b"} or not await aside(bench):
        while not worker.batches.empty():
            item = await worker.batch()
            await bench.ran(item, state="s")
            ran.add(item.key.instance_id)
        await asyncio.sleep(0.002)


TURN = (AsideKind.TURN, "bad", COUNTED_FAILURES, BUG)
ENTITY = (AsideKind.ENTITY, "@bad@a", COUNTED_FAILURES, BUG)
ACTIVITY = (AsideKind.ACTIVITY, "one", COUNTED_FAILURES, BUG)
KINDS = pytest.mark.parametrize(("run", "expected"), [(run_turns, TURN), (run_activities, ACTIVITY),
                                                      (run_entities, ENTITY)])


@KINDS
def test_an_answer_that_meets_a_bug_counts_and_is_set_aside(database_url, monkeypatch, tracebacks, run, expected):
    breaking(monkeypatch, turns, "apply", lambda turn, *_: turn.row.instance_id == "bad")
    breaking(monkeypatch, activities, "activity_outcome", lambda row, *_: row.name == "bad")
    breaking(monkeypatch, entities, "apply_batch", lambda turn, *_: turn.key.instance_id == "@bad@a")

    async def test(bench):
        await run(bench, bench.connect(Worker()))
        assert await an_item(bench) == expected

    in_time(database_url, test)
    assert len(tracebacks()) == 1


@pytest.mark.parametrize("ahead", [False, True])
def test_a_turn_that_cannot_be_written_leaves_its_group_and_is_set_aside(database_url, monkeypatch, tracebacks, ahead):
    """Its texts cannot be packed, neither before it joins a group (`ahead`) nor in it."""
    monkeypatch.setattr(owner, "PACK_AHEAD_BYTES", 0 if ahead else 1_000_000)
    for module in (committer, planning):
        breaking(monkeypatch, module, "pack_turn", lambda turn: turn.key.instance_id == "bad")

    async def test(bench):
        await run_turns(bench, bench.connect(Worker()))
        kind, name, _, cause = await an_item(bench)
        assert (kind, name, cause) == (AsideKind.TURN, "bad", BUG)

    in_time(database_url, test)
    assert len(tracebacks()) == 1


@pytest.mark.parametrize("careful", [False, True])
@KINDS
def test_a_work_item_that_cannot_be_sent_counts_and_is_set_aside(database_url, tracebacks, run, expected, careful):
    async def test(bench):
        if careful:
            bench.runtime.dispatcher._be_careful()
        await run(bench, bench.connect(Breaking()))
        assert await an_item(bench) == expected

    in_time(database_url, test)
    assert len(tracebacks()) == 1


def test_a_damaged_message_is_set_aside_and_its_instance_goes_on(database_url, tracebacks):
    async def test(bench):
        key = InstanceKey(partition_of("one", 1), "one")
        store = SqlInstances(bench.runtime.dispatcher._committer._database, bench.runtime.hub)
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        await bench.answer(await worker.turn())
        await bench.service.suspend("one", None)  # so that they are taken up together
        await bench.answer(await worker.turn())
        await store.send(NewMessage(key, None, MessageKind.EVENT, b"\xff"))
        await bench.service.raise_event("one", "behind", None)
        while not await aside(bench):
            await asyncio.sleep(0.002)
            while not worker.turns.empty():
                await bench.answer(await worker.turn())
        (item,) = await aside(bench)
        assert (item.kind, item.rows, item.attempts) == (AsideKind.TURN, 1, COUNTED_FAILURES)
        assert "the tag is 0xff" in item.cause
        await bench.service.raise_event("one", "last", None)
        await bench.answer(await worker.turn(), finish())
        assert await bench.status("one") == "COMPLETED"

    in_time(database_url, test)
    assert len(tracebacks()) == 1


def test_a_damaged_message_of_an_entity_harms_no_other_of_its(database_url, monkeypatch, tracebacks):
    breaking(monkeypatch, entities, "take", lambda inbox, *_: any(b"deadly" in row.events for row in inbox.rows))

    async def test(bench):
        worker = bench.connect(Worker())
        for operation in ("one", "deadly", "two"):
            await bench.entities.signal(Signal("@counter@a", operation))
        while not await aside(bench):
            await asyncio.sleep(0.002)
            while not worker.batches.empty():
                await bench.ran(await worker.batch(), state="s")
        (item,) = await aside(bench)
        assert (item.kind, item.rows, item.cause.partition(":")[0]) == (AsideKind.ENTITY, 1, BUG)

    in_time(database_url, test)
    assert len(tracebacks()) == 1
