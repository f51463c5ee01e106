"""A host that was given up for dead while it stalled: it loses its claims, may claim the same tasks anew, and what it
has in memory is old.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from dispatch.bench import Bench, Worker, on_bench, schedule
from durabletask_sql.errors import UnavailableError


async def claim_again(bench: Bench, row) -> None:
    """Take a task away from this host, as a successor does, and let the host claim it anew."""
    dispatcher = bench.runtime.dispatcher
    await dispatcher._committer.release_claims(dispatcher._host_id, [row.token])
    dispatcher._found_takers()
    dispatcher._kick()


async def scheduled(bench: Bench, worker: Worker):
    await bench.start("flow", "a")
    await bench.answer(await worker.turn(), *schedule("step"))


def test_a_result_counts_although_that_of_an_older_claim_is_still_on_its_way(database_url):
    async def test(bench: Bench):
        worker = bench.connect(Worker())
        await scheduled(bench, worker)
        old = await worker.activity()
        await claim_again(bench, old.row)
        new = await worker.activity()
        assert (new.row.seq, new.row.token != old.row.token) == (old.row.seq, True)
        await asyncio.gather(bench.result(old, "old"), bench.result(new, "new"))
        while b"new" not in (await worker.turn()).new_events:
            pass  # a turn that has run ahead of the old result is taken back

    on_bench(database_url, test)


def test_what_comes_back_under_an_older_claim_does_not_displace_the_new_one(database_url):
    async def test(bench: Bench):
        leaving, flows = bench.connect(Worker(name="leaving", activity_slots=1)), Worker(activity_slots=1)
        await scheduled(bench, leaving)
        old = await leaving.activity()
        await claim_again(bench, old.row)
        tasks = bench.runtime.dispatcher.board._activities
        await bench.until(lambda: bool(tasks._waiting))
        bench.board.disconnect(leaving)
        bench.connect(flows)
        new = await flows.activity()
        assert new.row.token != old.row.token
        await bench.result(new)
        await flows.turn()
        assert flows.activities.empty()

    on_bench(database_url, test)


def test_a_result_is_kept_although_memory_knows_but_an_older_execution(database_url):
    """Only the owner can say that nobody waits for a result, and this host cannot know that it still is that."""
    async def test(bench: Bench):
        worker = bench.connect(Worker())
        await scheduled(bench, worker)
        task = await worker.activity()
        mem = bench.runtime.dispatcher._memory.instance(task.row.key)
        mem.row = replace(mem.row, execution_id="older")
        await bench.result(task)
        assert b"done" in (await worker.turn()).new_events

    on_bench(database_url, test)


def test_a_second_result_is_not_answered_before_the_first_is_durable(database_url):
    async def test(bench: Bench):
        worker = bench.connect(Worker())
        await scheduled(bench, worker)
        task = await worker.activity()
        committer, opened = bench.runtime.dispatcher._committer, asyncio.Event()
        commit = committer.commit

        async def commit_later(group):
            await opened.wait()
            return await commit(group)

        committer.commit = commit_later
        first, second = (asyncio.create_task(bench.result(task)) for _ in range(2))
        done, _ = await asyncio.wait((first, second), timeout=0.1)
        assert not done
        opened.set()
        await asyncio.gather(first, second)
        assert await committer.activity(task.row.key.partition, task.row.seq, task.row.token) is None

    on_bench(database_url, test)


def test_a_result_whose_task_has_to_be_looked_for_waits_for_the_database(database_url):
    """An SDK that is told of an error drops the result, and nobody would run the task again."""
    async def test(bench: Bench):
        worker = bench.connect(Worker())
        await scheduled(bench, worker)
        task = await worker.activity()
        bench.board.disconnect(worker)
        activities, asked = bench.board._activities, 0
        find = activities._ports.find_activity

        async def find_later(*claim):
            nonlocal asked
            asked += 1
            if asked == 1:
                message = "the database is away"
                raise UnavailableError(message)
            return await find(*claim)

        activities._ports = replace(activities._ports, find_activity=find_later)
        await bench.result(task)
        assert asked == 2
        bench.connect(worker)
        assert b"done" in (await worker.turn()).new_events

    on_bench(database_url, test)
