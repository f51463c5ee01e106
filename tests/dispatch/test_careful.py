"""A careful host: what it hands out is written down first."""

from __future__ import annotations

import asyncio

from dispatch.bench import Bench, Worker, finish, on_bench, only
from durabletask_sql.dispatch.deliveries import CAREFUL_SECONDS
from durabletask_sql.partitions.suspects import SUSPECT_FROM
from tables import count


class Gate:
    """Holds up whatever is written down until it is opened."""

    def __init__(self, bench: Bench) -> None:
        self._store = bench.runtime.dispatcher._deliveries._store
        self._record = self._store.record
        self._store.record = self.record
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def record(self, *arguments):
        self.reached.set()
        await self.opened.wait()
        await self._record(*arguments)


def test_what_is_out_is_written_down_before_it_is_sent_and_struck_out_when_it_is_back(database_url):
    async def test(bench: Bench):
        bench.runtime.dispatcher._deliveries.be_careful()
        gate, worker = Gate(bench), bench.connect(Worker())
        await bench.start("flow", "a")
        await gate.reached.wait()
        assert worker.turns.empty()
        gate.opened.set()
        item = await worker.turn()
        assert count(database_url, "dispatches") == 1
        await bench.answer(item, finish())

        async def struck_out() -> bool:
            return count(database_url, "dispatches") == 0
        await bench.until_true(struck_out)

    on_bench(database_url, test)


def test_a_turn_that_is_stale_before_it_was_sent_keeps_no_seat(database_url):
    """It would stay out for ever at a worker that never had it, and as a suspect keep all others waiting."""
    async def test(bench: Bench):
        dispatcher = bench.runtime.dispatcher
        dispatcher._deliveries.be_careful()
        gate, worker = Gate(bench), bench.connect(Worker())
        await bench.start("flow", "a")
        await gate.reached.wait()
        dispatcher._owner.lose_ownership()  # the memory that the turn came from goes
        await bench.until(lambda: bench.board.outstanding == 2)  # it was read afresh, and handed out once more
        gate.opened.set()
        item = await worker.turn()
        assert bench.board.outstanding == 1
        await bench.answer(item, finish())
        assert bench.board.outstanding == 0

    on_bench(database_url, test)


def test_after_ten_minutes_what_waited_goes_out_and_nothing_is_written_down_any_more(database_url):
    """One suspect is out over all workers as long as it is careful: the other one waits for the end of that."""
    async def test(bench: Bench):
        deliveries = bench.runtime.dispatcher._deliveries
        for name in ("a", "b"):
            await bench.start("flow", name)
        for _ in range(SUSPECT_FROM):
            worker = bench.connect(Worker())
            for _ in ("a", "b"):
                await worker.turn()
            bench.board.disconnect(worker)
        deliveries.be_careful()
        one, other = (bench.connect(Worker(only(["flow"]))) for _ in range(2))
        bench.clock.moved = CAREFUL_SECONDS - 60.0
        harmless = bench.connect(Worker(only(["harmless"])))
        await bench.start("harmless", "c")
        item = await harmless.turn()
        assert count(database_url, "dispatches") == 2  # it is careful still
        assert one.turns.qsize() + other.turns.qsize() == 1

        bench.clock.moved = CAREFUL_SECONDS
        first, second = await one.turn(), await other.turn()
        await bench.until(lambda: count(database_url, "dispatches") == 0)
        store = deliveries._store
        store.record = None  # whatever is written down from now on fails
        await bench.start("harmless", "d")
        assert (await harmless.turn()).key.instance_id == "d"
        for out in (item, first, second):
            await bench.answer(out, finish())
        assert [await bench.status(name) for name in ("a", "b", "c")] == ["COMPLETED"] * 3
        assert count(database_url, "dispatches") == 0

    on_bench(database_url, test)


def test_a_partition_that_is_taken_from_a_lost_host_while_its_end_is_written_down_makes_it_careful_anew(database_url):
    async def test(bench: Bench):
        deliveries = bench.runtime.dispatcher._deliveries
        forget, reached, opened = deliveries._store.forget, asyncio.Event(), asyncio.Event()

        async def late(*arguments):
            reached.set()
            await opened.wait()
            await forget(*arguments)

        deliveries._store.forget = late
        deliveries.be_careful()
        bench.clock.moved = CAREFUL_SECONDS
        await reached.wait()
        deliveries.be_careful()
        opened.set()
        worker = bench.connect(Worker())
        for name in ("a", "b"):  # by the second one the loop has looked at the time
            await bench.start("flow", name)
            await worker.turn()
        assert count(database_url, "dispatches") == 2

    on_bench(database_url, test)
