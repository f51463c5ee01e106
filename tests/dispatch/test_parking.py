"""What nobody takes leaves memory when it runs short, and is taken up again when it may run, in order."""

from __future__ import annotations

import pytest

from dispatch.bench import Worker, connecting_while_it_parks, finish, kinds, on_bench, only
from dispatch.parked import SMALL, parked, until_parked
from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import iter_events
from durabletask_sql.storage.parking import READ_TIMERS

MANY = 45


async def fill(bench, count=MANY, name="other"):
    """Start more instances than memory is to hold; nobody takes them."""
    for number in range(count):
        await bench.start(name, f"{name}-{number}")


async def run_all(bench, worker, count):
    done = []
    for _ in range(count):
        item = await worker.turn()
        done.append(item.key.instance_id)
        await bench.answer(item, finish())
    return done


def test_memory_does_not_fill_with_what_nobody_takes(database_url):
    async def test(bench):
        worker = bench.connect(Worker(only(["flow"])))
        await fill(bench)
        await bench.start("flow", "f")
        assert await run_all(bench, worker, 1) == ["f"]
        await until_parked(bench, MANY - SMALL.partition_messages)
        assert len(bench.runtime.dispatcher._memory) <= SMALL.partition_messages + 1

    on_bench(database_url, test, SMALL)


def test_parked_instances_run_when_a_worker_connects_that_takes_them(database_url):
    async def test(bench):
        await fill(bench)
        await fill(bench, 20, "unknown")
        await until_parked(bench, 40)
        worker = bench.connect(Worker(only(["other"])))
        assert sorted(await run_all(bench, worker, MANY)) == sorted(f"other-{number}" for number in range(MANY))
        assert all(name.startswith("unknown") for name in await parked(bench))
        assert worker.turns.empty()
        again = bench.connect(Worker(only(["unknown"])))
        assert len(set(await run_all(bench, again, 20))) == 20
        assert await parked(bench) == []

    on_bench(database_url, test, SMALL)


def test_what_comes_later_stays_behind_what_is_parked(database_url):
    async def test(bench):
        await bench.start("other", "first", event=("e0", None))
        await fill(bench)
        await until_parked(bench, MANY - SMALL.partition_messages + 1)
        for number in range(1, 9):  # more than an instance's share of memory
            await bench.service.raise_event("first", f"e{number}", None)
        worker = bench.connect(Worker(only(["other"]), turn_slots=1000))
        seen = []
        while len(seen) < 9:
            item = await worker.turn()
            if item.key.instance_id == "first":
                found = [event for event in kinds(item.new_events) if event != "orchestratorStarted"]
                assert seen or found[0] == "executionStarted"
                seen += names_of(item.new_events)
                await bench.answer(item)
        assert seen == [f"e{number}" for number in range(9)]

    on_bench(database_url, test, SMALL)


def names_of(framed):
    return [event.eventRaised.name for event in iter_events(framed) if event.HasField("eventRaised")]


def test_an_instance_over_its_share_is_parked_whole(database_url):
    async def test(bench):
        worker = bench.connect(Worker(only(["other"])))
        await bench.start("other", "busy")
        await bench.answer(await worker.turn())
        bench.board.disconnect(worker)
        for number in range(12):
            await bench.service.raise_event("busy", f"e{number}", None)
        await fill(bench)
        await until_parked(bench, MANY - 10 + 12)
        assert (await parked(bench)).count("busy") in {0, 12}
        worker = bench.connect(Worker(only(["other"]), turn_slots=1000))
        seen = []
        while len(seen) < 12:
            item = await worker.turn()
            if item.key.instance_id == "busy":
                seen += names_of(item.new_events)
                await bench.answer(item)
        assert seen == [f"e{number}" for number in range(12)]

    on_bench(database_url, test, SMALL)


def test_a_new_owner_takes_up_what_was_parked(database_url):
    async def first(bench):
        await fill(bench)
        await until_parked(bench, MANY - 20)

    async def second(bench):
        worker = bench.connect(Worker())
        assert len(set(await run_all(bench, worker, MANY))) == MANY
        assert await parked(bench) == []

    on_bench(database_url, first, SMALL)
    on_bench(database_url, second, SMALL)


def test_messages_before_a_due_start_are_parked_and_come_behind_it(database_url):
    async def test(bench):
        worker = bench.connect(Worker(only(["flow"])))
        start_at = bench.clock.now() + 30 * MICROSECONDS
        for number in range(5):
            await bench.start("flow", f"late-{number}", start_at=start_at)
            for event in range(4):
                await bench.service.raise_event(f"late-{number}", f"e{event}", None)
        await until_parked(bench, 10)
        assert worker.turns.empty()
        bench.ahead(31)
        await bench.start("flow", "now")
        for _ in range(6):
            item = await worker.turn()
            if item.key.instance_id != "now":
                assert kinds(item.new_events)[:2] == ["orchestratorStarted", "executionStarted"]
                assert names_of(item.new_events) == ["e0", "e1", "e2", "e3"]
            await bench.answer(item, finish())
        assert await parked(bench) == []

    on_bench(database_url, test, SMALL)


def test_due_timers_of_what_nobody_takes_are_parked_too(database_url):
    async def test(bench):
        worker = bench.connect(Worker(only(["flow"]), turn_slots=1000))
        timer = pb.OrchestratorAction(id=1, createTimer=pb.CreateTimerAction())
        timer.createTimer.fireAt.FromMicroseconds(bench.clock.now() + 30 * MICROSECONDS)
        for number in range(10):
            await bench.start("flow", f"t{number}")
        for _ in range(10):
            await bench.answer(await worker.turn(), timer)
        bench.board.disconnect(worker)
        bench.ahead(31)
        await bench.start("other", "first")
        ready = bench.runtime.dispatcher._memory.ready
        await bench.until(lambda: sum(ready.counts().values()) == 11)
        await fill(bench)
        await until_parked(bench, MANY - 20)
        await until_parked(bench, 1, READ_TIMERS)
        again = bench.connect(Worker(only(["flow"])))
        for _ in range(10):
            item = await again.turn()
            assert kinds(item.new_events) == ["orchestratorStarted", "timerFired"]
            await bench.answer(item, finish())
        assert await parked(bench, READ_TIMERS) == []

    on_bench(database_url, test, SMALL)


def test_a_worker_that_comes_while_rows_are_being_parked_gets_them(database_url):
    async def test(bench):
        with connecting_while_it_parks(bench) as workers:
            await fill(bench)
            await bench.until(lambda: bool(workers))
            assert len(set(await run_all(bench, workers[0], MANY))) == MANY

    on_bench(database_url, test, SMALL)


@pytest.mark.parametrize("large", [True, False])
def test_nothing_is_parked_while_there_is_room(database_url, large):
    async def test(bench):
        await fill(bench, 9 if not large else MANY)
        await bench.until(lambda: len(bench.runtime.dispatcher._memory) == (9 if not large else MANY))
        assert await parked(bench) == []

    on_bench(database_url, test, SMALL if not large else None)


def test_parked_instances_are_counted_by_name(database_url):
    async def test(bench):
        await fill(bench, 30, "other")
        await until_parked(bench, 15)
        least = len(set(await parked(bench)))
        ((name, version, count),) = (await bench.runtime.dispatcher._committer.count_parked(1000)).instances
        assert (name, version) == ("other", None)
        assert least <= count <= len(set(await parked(bench)))  # parking may go on meanwhile, un-parking not

    on_bench(database_url, test, SMALL)
