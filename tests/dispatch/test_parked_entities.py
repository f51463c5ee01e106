"""Messages of entities that nobody takes leave memory when it runs short, and come back in order when somebody does."""

from __future__ import annotations

import pytest

from dispatch.bench import Bench, Worker, connecting_while_it_parks, finish, kinds, on_bench, only
from dispatch.entity_acts import call, lock, operations, signal, state, unlock
from dispatch.parked import SMALL, parked, until_parked
from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.ports.work import WorkKind
from durabletask_sql.service.abstraction import Signal
from durabletask_sql.storage.parking import READ_TIMERS

MANY = 45
HELD = "@other@held"
FLOWS = only(orchestrations=["flow"], entities=["counter"])


async def fill(bench: Bench, count=MANY, name="other"):
    """Signal more entities than memory is to hold; nobody takes them."""
    for number in range(count):
        await signal(bench, f"@{name}@{number}")


async def run_all(bench: Bench, worker: Worker, count: int) -> list[str]:
    """Run so many operations; return the entities that had them."""
    done: list[str] = []
    while len(done) < count:
        item = await worker.batch()
        done += [item.key.instance_id for _ in operations(item)]
        await bench.ran(item, state="1")
    return done


@pytest.mark.parametrize("ids", [MANY, 1])
def test_memory_does_not_fill_with_entities_that_nobody_takes(database_url, ids):
    async def test(bench: Bench):
        worker = bench.connect(Worker(FLOWS))
        for number in range(MANY):
            await signal(bench, f"@other@{number % ids}")
        for number in range(8):  # beside many entities a single one leaves room
            await signal(bench, f"@another@{number}")
        await bench.start("flow", "f")
        await bench.answer(await worker.turn(), finish())
        await signal(bench, "@counter@a")
        assert await run_all(bench, worker, 1) == ["@counter@a"]
        assert len(bench.runtime.dispatcher._memory) <= SMALL.partition_messages + 1

    on_bench(database_url, test, SMALL)


def test_parked_entities_run_when_a_worker_connects_that_takes_them(database_url):
    async def test(bench: Bench):
        await fill(bench)
        await fill(bench, 20, "Unknown")
        await until_parked(bench, 40)
        worker = bench.connect(Worker(only(entities=["other"])))
        assert sorted(await run_all(bench, worker, MANY)) == sorted(f"@other@{number}" for number in range(MANY))
        assert all(name.startswith("@Unknown") for name in await parked(bench))
        assert worker.batches.empty()
        again = bench.connect(Worker(only(entities=["unknown"])))
        assert len(set(await run_all(bench, again, 20))) == 20
        assert await parked(bench) == []

    on_bench(database_url, test, SMALL)


def test_what_comes_later_stays_behind_what_is_parked(database_url):
    async def test(bench: Bench):
        await signal(bench, HELD, "0")
        await fill(bench)
        await until_parked(bench, MANY - SMALL.partition_messages + 1)
        for number in range(1, 9):  # more than an entity's share of memory
            await signal(bench, HELD, str(number))
        worker = bench.connect(Worker(only(entities=["other"])))
        assert await run_held(bench, worker, 9) == [str(number) for number in range(9)]

    on_bench(database_url, test, SMALL)


async def run_held(bench: Bench, worker: Worker, count: int) -> list[str]:
    """Run everything until so many operations of one entity have run; return these."""
    seen: list[str] = []
    while len(seen) < count:
        item = await worker.batch()
        seen += operations(item) if item.key.instance_id == HELD else []
        await bench.ran(item, state="1")
    return seen


async def until_held_parked(bench: Bench, count: int) -> None:
    async def enough() -> bool:
        return (await parked(bench)).count(HELD) == count
    await bench.until_true(enough)


async def hold(bench: Bench, worker: Worker, count: int) -> None:
    """Have an orchestration lock an entity and call it, while so many signals wait behind the lock."""
    await bench.start("flow", "holder")
    await bench.answer(await worker.turn(), lock(1, HELD))
    granted = await worker.turn()
    for number in range(count):
        await signal(bench, HELD, str(number))
    await bench.answer(granted, *(call(number, HELD, f"call {number}") for number in (2, 3)))


def test_calls_of_a_locks_holder_are_parked_with_what_waits_behind_the_lock(database_url):
    """What a locked entity holds without having it in memory is parked too, and forgotten as such."""
    async def test(bench: Bench):
        worker = bench.connect(Worker(FLOWS))
        await hold(bench, worker, 12)
        await fill(bench)
        await until_held_parked(bench, 14)
        other = bench.connect(Worker(only(entities=["other"]), entity_slots=1000))
        assert await run_held(bench, other, 2) == ["call 2", "call 3"]
        answers: list[str] = []
        while True:
            item = await worker.turn()
            answers += [kind for kind in kinds(item.new_events) if kind == "entityOperationCompleted"]
            if len(answers) == 2:
                break
            await bench.answer(item)
        await bench.answer(item, unlock(9, HELD), finish())
        assert await run_held(bench, other, 12) == [str(number) for number in range(12)]

    on_bench(database_url, test, SMALL)


def test_the_lock_of_a_parked_entity_is_freed_with_no_worker_for_it(database_url):
    async def test(bench: Bench):
        worker = bench.connect(Worker(FLOWS))
        await hold(bench, worker, 1)
        await fill(bench)
        await until_held_parked(bench, 3)
        await bench.service.terminate("holder", "why", recursive=False)
        while True:
            item = await worker.turn()
            await bench.answer(item)
            if "executionTerminated" in kinds(item.new_events):
                break
        async def free() -> bool:
            found = await bench.entities.get(HELD)
            return found is None or found.row.lock is None
        await bench.until_true(free)
        other = bench.connect(Worker(only(entities=["other"])))
        assert (await run_all(bench, other, MANY + 3)).count(HELD) == 3

    on_bench(database_url, test, SMALL)


def test_delayed_signals_of_what_nobody_takes_are_parked_too(database_url):
    async def test(bench: Bench):
        at = bench.clock.now() + 30 * MICROSECONDS
        for number in range(10):
            await bench.entities.signal(Signal(f"@late@{number}", "add", due=at))
        bench.ahead(31)
        await signal(bench, "@other@first")
        lanes = bench.runtime.dispatcher._memory.entities
        await bench.until(lambda: sum(lanes.counts().values()) == 11)
        await fill(bench)
        await until_parked(bench, MANY - 20)
        await until_parked(bench, 1, READ_TIMERS)
        late = bench.connect(Worker(only(entities=["late"])))
        assert len(set(await run_all(bench, late, 10))) == 10
        assert await parked(bench, READ_TIMERS) == []

    on_bench(database_url, test, SMALL)


def test_a_new_owner_takes_up_what_was_parked(database_url):
    async def first(bench: Bench):
        await fill(bench)
        await until_parked(bench, MANY - 20)

    async def second(bench: Bench):
        assert len(set(await run_all(bench, bench.connect(Worker()), MANY))) == MANY
        assert await parked(bench) == []

    on_bench(database_url, first, SMALL)
    on_bench(database_url, second, SMALL)


def test_a_worker_that_comes_while_rows_are_being_parked_gets_them(database_url):
    async def test(bench: Bench):
        with connecting_while_it_parks(bench) as workers:
            await fill(bench)
            await bench.until(lambda: bool(workers))
            assert len(set(await run_all(bench, workers[0], MANY))) == MANY

    on_bench(database_url, test, SMALL)


def test_an_entity_that_holds_more_than_its_share_is_forgotten_with_all_of_it(database_url):
    """It was locked while more signals came than memory has room for; then nobody takes it any more."""
    async def test(bench: Bench):
        worker = bench.connect(Worker(FLOWS))
        await bench.start("flow", "holder")
        await bench.answer(await worker.turn(), lock(1, HELD))
        granted = await worker.turn()
        for number in range(12):
            await signal(bench, HELD, str(number))
        await bench.answer(granted, unlock(2, HELD), finish())
        await fill(bench)
        await until_held_parked(bench, 12)
        assert bench.runtime.dispatcher._memory.find(InstanceKey(0, HELD)) is None
        await signal(bench, HELD, "12")
        other = bench.connect(Worker(only(entities=["other"])))
        assert await run_held(bench, other, 13) == [str(number) for number in range(13)]
        assert await state(bench, HELD) == "1"

    on_bench(database_url, test, SMALL)


def test_nothing_is_parked_while_there_is_room(database_url):
    async def test(bench: Bench):
        await fill(bench, 9)
        await bench.until(lambda: len(bench.runtime.dispatcher._memory) == 9)
        assert await parked(bench) == []

    on_bench(database_url, test, SMALL)


def test_what_nobody_takes_is_told_by_name_parked_or_not(database_url):
    async def test(bench: Bench):
        await fill(bench, 30, "Other")
        await until_parked(bench, 15)
        least = len(set(await parked(bench)))
        counts = await bench.runtime.dispatcher._committer.count_parked(1000)
        assert (counts.instances, set(counts.entities)) == ((), {"other"})
        assert least <= counts.entities["other"] <= len(set(await parked(bench)))
        bench.clock.moved += 60
        await bench.upkeep.look()
        (work,) = bench.upkeep.unserved.waiting
        assert (work.kind, work.name, work.version) == (WorkKind.ENTITY, "other", None)

    on_bench(database_url, test, SMALL)
