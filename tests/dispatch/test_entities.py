"""Entities in dispatch: who gets a batch, what comes back, locks without any worker, and memory that is too small."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from dispatch.bench import DONE, Bench, Worker, finish, kinds, on_bench, only
from dispatch.entity_acts import A, B, call, lock, operations, signal, state, unlock
from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.partitions.limits import MemoryLimits
from durabletask_sql.partitions.suspects import COUNTED_FAILURES
from durabletask_sql.ports.work import Profile
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import iter_events
from durabletask_sql.service.abstraction import Signal
from entity_rows import guid


def test_signals_come_in_one_batch_in_their_order(database_url):
    async def test(bench: Bench):
        for number in range(5):
            await signal(bench, operation=str(number))
        worker = bench.connect(Worker())
        seen = []
        while len(seen) < 5:
            item = await worker.batch()
            assert (item.key.instance_id, item.state) == (A, str(len(seen)) if seen else None)
            seen += operations(item)
            await bench.ran(item, state=str(len(seen)))
        assert seen == [str(number) for number in range(5)]
        assert await state(bench) == "5"

    on_bench(database_url, test)


def test_an_entity_goes_to_who_takes_its_name_and_holds_nobody_up(database_url):
    async def test(bench: Bench):
        worker = bench.connect(Worker(only(entities=["counter"])))
        await signal(bench, "@other@a")
        await signal(bench, "@Counter@a")
        item = await worker.batch()
        assert item.key.instance_id == "@Counter@a"
        late = bench.connect(Worker(only(entities=["other"])))
        assert (await late.batch()).key.instance_id == "@other@a"

    on_bench(database_url, test)


def test_a_worker_without_entities_gets_none(database_url):
    async def test(bench: Bench):
        none, some = bench.connect(Worker(entity_slots=0)), bench.connect(Worker(entity_slots=1))
        for entity_id in (A, B):
            await signal(bench, entity_id)
        await bench.ran(await some.batch(), state="1")
        await bench.ran(await some.batch(), state="1")
        assert none.batches.empty()

    on_bench(database_url, test)


def test_a_batch_goes_back_at_once_when_its_worker_leaves_and_counts_once(database_url):
    async def test(bench: Bench):
        first = bench.connect(Worker())
        await signal(bench)
        item = await first.batch()
        bench.board.disconnect(first)
        second = bench.connect(Worker())
        again = await second.batch()
        assert (operations(again), again.token != item.token) == (["add"], True)
        await bench.ran(item, state="late")
        assert await state(bench) is None
        await bench.ran(again, state="1")
        await bench.ran(again, state="twice")
        assert await state(bench) == "1"

    on_bench(database_url, test)


def test_an_abandoned_batch_goes_to_another_worker(database_url, monkeypatch):
    monkeypatch.setattr("durabletask_sql.dispatch.delays.delay_seconds", lambda _: 0.0)

    async def test(bench: Bench):
        refusing = bench.connect(Worker(entity_slots=9))
        await signal(bench)
        item = await refusing.batch()
        other = bench.connect(Worker(entity_slots=1))
        await bench.board.abandon_entity(item.token)
        await bench.board.abandon_entity(item.token)
        await bench.board.abandon_entity("nobody's")
        assert operations(await other.batch()) == ["add"]

    on_bench(database_url, test)


def test_what_has_no_result_runs_again_with_what_came_meanwhile(database_url):
    async def test(bench: Bench):
        for name in ("one", "two"):
            await signal(bench, operation=name)
        worker = bench.connect(Worker())
        item = await worker.batch()
        if operations(item) == ["one"]:  # the second had not been claimed yet
            await bench.ran(item, state="1")
        else:
            await bench.ran(item, DONE, state="1")
        again = await worker.batch()
        assert (operations(again), again.state) == (["two"], "1")

    on_bench(database_url, test)


def test_an_answer_that_cannot_be_carried_out_is_set_aside_and_the_next_goes_on(database_url, monkeypatch):
    monkeypatch.setattr("durabletask_sql.dispatch.delays.delay_seconds", lambda _: 0.0)

    async def test(bench: Bench):
        worker = bench.connect(Worker())
        await signal(bench, operation="bad")
        for _ in range(COUNTED_FAILURES):
            item = await worker.batch()
            assert operations(item) == ["bad"]
            await bench.ran(item, DONE, DONE, DONE)
        await signal(bench, operation="good")
        assert operations(await worker.batch()) == ["good"]

    on_bench(database_url, test)


def test_of_a_batch_whose_answer_is_too_large_only_the_guilty_operation_fails(database_url):
    async def test(bench: Bench):
        caller = bench.connect(Worker(entity_slots=0))
        await bench.start("flow", "caller")
        turn = await caller.turn()
        await bench.answer(turn, call(1), call(2, operation="large"), call(3))
        large = pb.OperationResult(success=pb.OperationResultSuccess(result=events.text("x" * (17 * 1024 * 1024))))
        worker = bench.connect(Worker(only(entities=["counter"]), turn_slots=0))
        answered = []

        async def run_batches():
            while True:
                item = await worker.batches.get()
                names = operations(item)
                await bench.ran(item, *(large if name == "large" else DONE for name in names), state="1")

        async with asyncio.TaskGroup() as group:
            running = group.create_task(run_batches())
            while len(answered) < 3:
                item = await caller.turn()
                answered += [kind for kind in kinds(item.new_events) if kind.startswith("entityOperation")]
                await bench.answer(item)
            running.cancel()
        assert answered == ["entityOperationCompleted", "entityOperationFailed", "entityOperationCompleted"]
        assert await state(bench) == "1"

    on_bench(database_url, test)


def test_a_state_too_large_for_a_worker_waits_for_one_that_can_read_it(database_url):
    async def test(bench: Bench):
        small = bench.connect(Worker(Profile(message_bytes=64 * 1024)))
        await signal(bench)
        await bench.ran(await small.batch(), state="x" * 100_000)
        await signal(bench)
        await signal(bench, B)
        assert (await small.batch()).key.instance_id == B
        big = bench.connect(Worker(Profile(message_bytes=None)))
        assert len((await big.batch()).state) == 100_000

    on_bench(database_url, test)


def test_locks_are_granted_and_freed_with_no_worker_for_entities(database_url):
    async def test(bench: Bench):
        worker = bench.connect(Worker(entity_slots=0))
        await bench.start("flow", "owner")
        await bench.answer(await worker.turn(), lock(1, B, A))
        granted = await worker.turn()
        assert "entityLockGranted" in kinds(granted.new_events)
        assert (await bench.runtime.entities._store.get(granted.key._replace(
            partition=0, instance_id=A))).row.lock.instance_id == "owner"
        await bench.answer(granted, unlock(2, A), unlock(3, B), finish())
        await bench.start("flow", "next")
        await bench.answer(await worker.turn(), lock(1, A, B))
        assert "entityLockGranted" in kinds((await worker.turn()).new_events)

    on_bench(database_url, test)


def test_both_forms_meet_in_one_entity_and_each_is_answered_in_its_own(database_url):
    async def test(bench: Bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "old")
        request = json.dumps({"op": "get", "id": guid(1), "parent": "old", "input": "3"})
        old = pb.OrchestratorAction(id=1, sendEvent=pb.SendEventAction(
            instance=pb.OrchestrationInstance(instanceId=A), name="op", data=events.text(request)))
        await bench.answer(await worker.turn(), old)
        await bench.ran(await worker.batch(), pb.OperationResult(success=pb.OperationResultSuccess(
            result=events.text("7"))), state="1")
        raised = list(iter_events((await worker.turn()).new_events))[-1].eventRaised
        assert (raised.name, json.loads(raised.input.value)) == (guid(1), {"result": "7"})
        await bench.start("flow", "new")
        await bench.answer(await worker.turn(), call(1))
        await bench.ran(await worker.batch(), state="1")
        assert kinds((await worker.turn()).new_events)[-1] == "entityOperationCompleted"

    on_bench(database_url, test)


LIMITS = MemoryLimits(partition_messages=30, share_messages=8, share_bytes=1 << 20)
HOLDERS = 5


async def hold(bench: Bench, worker: Worker, number: int) -> None:
    """Have an orchestration lock an entity, in whose queue more then waits than memory has room for."""
    await bench.start("flow", f"holder-{number}")
    await bench.answer(await worker.turn(), lock(1, f"@counter@{number}"))
    await bench.answer(await worker.turn())  # granted; it waits for an event
    for place in range(20):
        await signal(bench, f"@counter@{number}", str(place))


async def let_go(bench: Bench, worker: Worker) -> None:
    """Tell every holder to end, and run what waited, in its order."""
    for number in range(HOLDERS):
        await bench.service.raise_event(f"holder-{number}", "go", None)
    for _ in range(HOLDERS):
        item = await worker.turn()
        number = item.key.instance_id.rpartition("-")[2]
        await bench.answer(item, unlock(9, f"@counter@{number}"), finish())
    seen: dict[str, list[str]] = {}
    while sum(map(len, seen.values())) < 20 * HOLDERS:
        item = await worker.batch()
        seen.setdefault(item.key.instance_id, []).extend(operations(item))
        await bench.ran(item, state="1")
    assert set(map(tuple, seen.values())) == {tuple(str(place) for place in range(20))}


@pytest.mark.parametrize("limits", [LIMITS, replace(LIMITS, instances=4), replace(LIMITS, history_bytes=1)])
def test_long_queues_behind_locks_leave_room_for_those_who_hold_them(database_url, limits):
    async def test(bench: Bench):
        worker = bench.connect(Worker())
        for number in range(HOLDERS):
            await hold(bench, worker, number)
        await let_go(bench, worker)

    on_bench(database_url, test, limits)


def test_a_due_signal_behind_a_lock_leaves_room_for_others_and_runs_in_the_end(database_url):
    async def test(bench: Bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "holder")
        await bench.answer(await worker.turn(), lock(1, A))
        await bench.answer(await worker.turn())  # granted; it waits for an event
        due = bench.clock.now() + MICROSECONDS // 50
        await bench.entities.signal(Signal(A, "later", None, due=due))
        count = 0
        while bench.clock.now() < due + MICROSECONDS // 10 or count < 5:
            await bench.start("flow", f"other-{count}")
            await bench.answer(await worker.turn(), finish())
            count += 1
        await bench.service.raise_event("holder", "go", None)
        await bench.answer(await worker.turn(), unlock(9, A), finish())
        assert operations(await worker.batch()) == ["later"]

    on_bench(database_url, test, MemoryLimits(instances=1))


def test_a_new_owner_finds_the_holders_behind_the_queues_of_their_locks(database_url):
    async def first(bench: Bench):
        worker = bench.connect(Worker())
        for number in range(HOLDERS):
            await hold(bench, worker, number)
        for number in range(700):  # more than a scan looks at
            await signal(bench, "@counter@0", f"more-{number}")
            if number % 100 == 0:
                await asyncio.sleep(0)

    async def second(bench: Bench):
        worker = bench.connect(Worker())
        for number in range(HOLDERS):
            await bench.service.raise_event(f"holder-{number}", "go", None)
        for _ in range(HOLDERS):
            item = await worker.turn()
            number = item.key.instance_id.rpartition("-")[2]
            await bench.answer(item, unlock(9, f"@counter@{number}"), finish())
        seen = 0
        while seen < 700 + 20 * HOLDERS:
            item = await worker.batch()
            seen += len(operations(item))
            await bench.ran(item, state="1")

    on_bench(database_url, first, LIMITS)
    on_bench(database_url, second, LIMITS)


