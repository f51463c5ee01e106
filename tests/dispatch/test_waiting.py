"""Clients that wait for an instance: what is read for them, and that nothing is missed."""

from __future__ import annotations

import asyncio

import pytest

from dispatch.bench import Worker, finish, on_bench, schedule
from durabletask_sql.model.status import Status


def watched(bench, monkeypatch):
    """Note the reads of single instances, without the polls, which may find a commit before its waiters were told."""
    instances, reads = bench.service._instances, []
    get = instances.get

    async def no_poll(_):
        pass

    monkeypatch.setattr(bench.service.waiters, "poll", no_poll)

    async def noted(key, **how):
        reads.append(key.instance_id)
        return await get(key, **how)

    monkeypatch.setattr(instances, "get", noted)
    return reads


@pytest.mark.parametrize("payloads", [False, True])
def test_who_waits_for_an_instance_in_memory_reads_it_at_its_end_at_most(database_url, monkeypatch, payloads):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one", input="in")
        reads = watched(bench, monkeypatch)
        waiting = asyncio.create_task(bench.service.wait_for_completion("one", payloads=payloads))
        await asyncio.sleep(0)
        for number in range(3):
            await bench.answer(await worker.turn(), *schedule("step", first=number))
            await bench.result(await worker.activity())
        await bench.answer(await worker.turn(), finish())
        state = await waiting
        assert reads == (["one"] if payloads else [])
        assert state == await bench.service.get("one", payloads=payloads)
        assert (state.row.status, state.input) == (Status.COMPLETED, "in" if payloads else None)

    on_bench(database_url, test)


def test_who_waits_for_a_start_is_told_of_the_first_turn(database_url, monkeypatch):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        reads = watched(bench, monkeypatch)
        waiting = asyncio.create_task(bench.service.wait_for_start("one", payloads=False))
        await asyncio.sleep(0)
        await bench.answer(await worker.turn(), *schedule("step"))
        assert (await waiting).row.status is Status.RUNNING
        assert not reads

    on_bench(database_url, test)


def test_an_end_that_somebody_else_made_is_read_although_memory_knows_better(database_url):
    """Memory may be that of a host that has lost the instance: only the database tells."""
    async def test(bench):
        await bench.start("flow", "one")
        waiting = asyncio.create_task(bench.service.wait_for_completion("one", payloads=False))
        await asyncio.sleep(0)
        forget = bench.runtime.dispatcher.forget
        bench.service._owner.forget = lambda _: None  # the owner does not hear of it
        try:
            await bench.service.terminate_now(["one"], "gone")
        finally:
            bench.service._owner.forget = forget
        assert bench.runtime.dispatcher.known(bench.service._key("one")) is not None
        assert (await waiting).row.status is Status.TERMINATED

    on_bench(database_url, test)
