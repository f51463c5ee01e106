"""Workers that go away while their answer waits for a commit: their calls are cancelled, and nothing else is lost by it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from dispatch.bench import Worker, finish, on_bench, schedule


class HeldCommits:
    """Keeps the owner's commits from beginning until they are let go."""

    def __init__(self, bench):
        self._committer = bench.runtime.dispatcher._owner._committer
        self._commit = self._committer.commit
        self._gate = asyncio.Event()
        self._committer.commit = self._held

    async def _held(self, group):
        await self._gate.wait()
        return await self._commit(group)

    def let_go(self):
        self._gate.set()


async def answered_ahead(bench, worker):
    """A turn that was answered before the commit of the result which it ran on: both calls, which wait."""
    await bench.start("flow", "one")
    await bench.answer(await worker.turn(), *schedule("act"))
    activity = await worker.activity()
    commits = HeldCommits(bench)
    result = asyncio.create_task(bench.result(activity))
    answer = asyncio.create_task(bench.answer(await worker.turn(), finish()))
    await bench.until(lambda: bench.board.is_idle)
    return commits, result, answer


async def lose(call):
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call
    assert call.cancelled()


def test_an_answer_counts_although_its_caller_went_away_before_its_message_was_durable(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        commits, result, answer = await answered_ahead(bench, worker)
        await lose(answer)
        commits.let_go()
        await result
        assert (await bench.service.wait_for_completion("one", payloads=False)).row.status.name == "COMPLETED"
        assert worker.turns.empty()

    on_bench(database_url, test)


def test_a_turn_that_ran_on_a_result_whose_caller_went_away_is_committed(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        commits, result, answer = await answered_ahead(bench, worker)
        await lose(result)
        commits.let_go()
        async with asyncio.timeout(10):
            await answer
        assert await bench.status("one") == "COMPLETED"

    on_bench(database_url, test)


def test_a_turn_whose_caller_goes_away_during_its_commit_is_committed_once(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        item = await worker.turn()
        commits = HeldCommits(bench)
        answer = asyncio.create_task(bench.answer(item, finish()))
        await bench.until(lambda: bench.board.is_idle)
        await lose(answer)
        commits.let_go()
        assert (await bench.service.wait_for_completion("one", payloads=False)).row.history_count == 3
        assert worker.turns.empty()

    on_bench(database_url, test)
