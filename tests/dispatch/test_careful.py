"""A careful host: what it hands out is written down first."""

from __future__ import annotations

import asyncio

from dispatch.bench import Bench, Worker, finish, on_bench
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
