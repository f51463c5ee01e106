"""The first turn of a new orchestration runs while its start is being committed, and counts only if that is (I3)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from dispatch.bench import Worker, finish, on_bench, schedule
from durabletask_sql.dispatch import pace
from durabletask_sql.errors import OutcomeUnknownError, UnavailableError
from durabletask_sql.model.checkpoints import ActivityCompletion, OrchestrationStart, Outcome, OutcomeKind
from durabletask_sql.ports.committer import Committed

NEW = "0f8fad5bd9cb469fa165708677289520"


class Gate:
    """Holds the first group with a start, or such an item, back, and may have it end otherwise than by being committed."""

    def __init__(self, bench, monkeypatch, kind=OrchestrationStart):
        self._kind = kind
        self.reached, self.opened = asyncio.Event(), asyncio.Event()
        self.ending = self._commit
        self._committer = bench.runtime.dispatcher._committer
        self._real = self._committer.commit
        monkeypatch.setattr(self._committer, "commit", self._hold)

    async def _hold(self, group):
        if self.reached.is_set() or not any(isinstance(item, self._kind) for item in group.items):
            return await self._real(group)
        self.reached.set()
        await self.opened.wait()
        return await self.ending(group)

    async def _commit(self, group):
        return await self._real(group)

    async def refuse(self, group):
        return Committed(tuple(Outcome(OutcomeKind.REFUSED, "made by the test") for _ in group.items))

    async def be_busy(self, group):
        return Committed(tuple(Outcome(OutcomeKind.BUSY, "made by the test") for _ in group.items))

    async def be_away(self, _):
        message = "made by the test"
        raise UnavailableError(message)

    async def vanish(self, _):
        message = "made by the test"
        raise OutcomeUnknownError(message)

    async def vanish_after(self, group):
        await self._real(group)
        await self.vanish(group)


@asynccontextmanager
async def started(bench, monkeypatch, instance_id=NEW):
    """A worker, a gate, and a start that waits before it."""
    worker, gate = bench.connect(Worker()), Gate(bench, monkeypatch)
    start = asyncio.create_task(bench.start("flow", instance_id))
    try:
        await asyncio.wait_for(gate.reached.wait(), 10)
        yield worker, gate, start
    finally:
        gate.opened.set()
        await asyncio.gather(start, return_exceptions=True)


async def is_quiet(bench, worker):
    """Nothing of the first instance comes again."""
    await bench.start("flow", "after")
    assert (await worker.turn()).key.instance_id == "after"


def test_the_first_turn_runs_while_the_start_is_committed_and_its_answer_waits(database_url, monkeypatch):
    async def test(bench):
        async with started(bench, monkeypatch) as (worker, gate, start):
            answer = asyncio.create_task(bench.answer(await worker.turn(), finish()))
            await asyncio.sleep(0)  # it has come as far as it can
            assert await bench.service.get(NEW, payloads=False) is None
            assert not start.done()
            gate.opened.set()
            await asyncio.gather(start, answer)
            assert await bench.status(NEW) == "COMPLETED"
            await is_quiet(bench, worker)

    on_bench(database_url, test)


def test_nothing_runs_ahead_under_an_id_that_may_be_taken(database_url, monkeypatch):
    async def test(bench):
        async with started(bench, monkeypatch, "order-17") as (worker, gate, start):
            assert worker.turns.empty()
            gate.opened.set()
            await start
            assert (await worker.turn()).key.instance_id == "order-17"

    on_bench(database_url, test)


@pytest.mark.parametrize("answered", ["before", "after", "never"])
@pytest.mark.parametrize("ending", ["refuse", "be_busy", "be_away", "vanish", "vanish_after"])
def test_a_turn_whose_start_did_not_come_counts_nothing_and_runs_again(database_url, monkeypatch, ending, answered):
    async def test(bench):
        async with started(bench, monkeypatch) as (worker, gate, start):
            gate.ending = getattr(gate, ending)
            ahead, answer = await worker.turn(), None
            if answered == "before":
                answer = asyncio.create_task(bench.answer(ahead, finish()))
                await asyncio.sleep(0)
            gate.opened.set()
            await start
            again = await worker.turn()
            if answered == "after":
                await bench.answer(ahead, finish())
            elif answer is not None:
                await answer
            assert await bench.status(NEW) == "PENDING"  # the answer to the turn ahead counted nothing
            assert (again.key, again.past) == (ahead.key, ())
            await bench.answer(again, finish())
            assert await bench.status(NEW) == "COMPLETED"
            await is_quiet(bench, worker)

    on_bench(database_url, test)


def test_an_id_that_proves_to_be_taken_gets_its_turn_from_its_own_creation(database_url, monkeypatch):
    async def test(bench):
        first = bench.connect(Worker())
        await bench.start("flow", NEW)
        await bench.answer(await first.turn(), finish())
        bench.board.disconnect(first)
        async with started(bench, monkeypatch) as (worker, gate, start):
            ahead = await worker.turn()
            gate.opened.set()
            await start  # an ended one is replaced
            again = await worker.turn()
            await bench.answer(ahead, finish())
            assert await bench.status(NEW) == "PENDING"
            await bench.answer(again, finish())
            assert await bench.status(NEW) == "COMPLETED"
            await is_quiet(bench, worker)

    on_bench(database_url, test)


def test_a_client_that_goes_away_leaves_its_start_and_the_turn_to_each_other(database_url, monkeypatch):
    async def test(bench):
        async with started(bench, monkeypatch) as (worker, gate, start):
            answer = asyncio.create_task(bench.answer(await worker.turn(), finish()))
            await asyncio.sleep(0)
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
            assert not answer.done()
            gate.opened.set()
            await answer
            assert await bench.status(NEW) == "COMPLETED"

    on_bench(database_url, test)


def test_a_worker_that_is_lost_meanwhile_gives_the_turn_to_another(database_url, monkeypatch):
    async def test(bench):
        async with started(bench, monkeypatch) as (worker, gate, start):
            await worker.turn()
            other = bench.connect(Worker())
            bench.board.disconnect(worker)
            again = await other.turn()
            gate.opened.set()
            await start
            await bench.answer(again, finish())
            assert await bench.status(NEW) == "COMPLETED"

    on_bench(database_url, test)


def test_an_event_sent_as_soon_as_the_start_is_known_comes_after_the_turn_that_ran_ahead(database_url, monkeypatch):
    async def test(bench):
        async with started(bench, monkeypatch) as (worker, gate, start):
            ahead = await worker.turn()
            gate.opened.set()
            await start
            await bench.service.raise_event(NEW, "go", None)
            await bench.answer(ahead)
            assert b"go" in (await worker.turn()).new_events

    on_bench(database_url, test)


def executors_have_enough(monkeypatch, items):
    """From so many items on executors have enough to do, however fast they answer, and no commit waits for others."""
    monkeypatch.setattr(pace, "MANY_ITEMS", items)
    monkeypatch.setattr(pace, "MANY_GAP_SECONDS", 60.0)
    monkeypatch.setattr(pace, "BUSY_GAP_SECONDS", 0.0)


@pytest.mark.parametrize("enough", [1, 0])
def test_a_first_turn_waits_for_the_start_while_executors_have_enough(database_url, monkeypatch, enough):
    """Nothing is out when the start comes."""
    executors_have_enough(monkeypatch, enough)

    async def test(bench):
        async with started(bench, monkeypatch) as (worker, gate, start):
            assert worker.turns.empty() is (enough == 0)
            gate.opened.set()
            await start
            await bench.answer(await worker.turn(), finish())
            assert await bench.status(NEW) == "COMPLETED"
            await is_quiet(bench, worker)

    on_bench(database_url, test)


@pytest.mark.parametrize("enough", [2, 1])
def test_a_turn_waits_for_the_result_while_executors_have_enough(database_url, monkeypatch, enough):
    """One item is still out when the result comes."""
    executors_have_enough(monkeypatch, enough)

    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        await bench.answer(await worker.turn(), *schedule("act", "act"))
        activity, _ = await worker.activity(), await worker.activity()
        gate = Gate(bench, monkeypatch, ActivityCompletion)
        result = asyncio.create_task(bench.result(activity))
        await asyncio.wait_for(gate.reached.wait(), 10)
        assert worker.turns.empty() is (enough == 1)
        gate.opened.set()
        await result
        assert b"done" in (await worker.turn()).new_events
        assert worker.turns.empty()

    on_bench(database_url, test)
