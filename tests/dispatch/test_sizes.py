"""Turns and tasks too large for one worker go to another that can take them, or wait, each alone."""

from __future__ import annotations

import asyncio
import logging
import random
import string
from dataclasses import replace

from dispatch.bench import Worker, finish, on_bench, only, schedule
from durabletask_sql.ports.work import Profile

LIMIT = 200_000
SMALL = Profile(message_bytes=LIMIT)
STREAMING = replace(SMALL, streams_history=True)


def test_a_turn_too_large_for_one_worker_goes_to_another(database_url):
    async def test(bench):
        large = bench.connect(Worker())
        await bench.start("flow", "a", input="x" * LIMIT)
        await bench.answer(await large.turn())
        small = bench.connect(Worker(SMALL, turn_slots=1000))
        await bench.service.raise_event("a", "go", None)
        item = await large.turn()
        assert sum(map(len, item.past)) > LIMIT
        await bench.answer(item, finish())
        assert small.turns.empty()

    on_bench(database_url, test)


def test_a_turn_that_no_worker_can_read_waits_alone_and_says_why(database_url, caplog):
    async def test(bench):
        first = bench.connect(Worker())
        await bench.start("flow", "a", input="x" * LIMIT)
        await bench.answer(await first.turn())
        small = bench.connect(Worker(SMALL))
        bench.board.disconnect(first)
        await bench.service.raise_event("a", "go", None)
        await bench.start("flow", "b")
        item = await small.turn()
        assert item.key.instance_id == "b"
        await bench.answer(item, finish())
        await bench.until(lambda: "set aside" in caplog.text)
        await bench.service.raise_event("a", "again", None)
        capable = bench.connect(Worker())
        item = await capable.turn()
        await bench.answer(item, finish())
        assert await bench.status("a") == "COMPLETED"
        assert small.turns.empty()

    with caplog.at_level(logging.ERROR, "durabletask_sql"):
        on_bench(database_url, test)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "'a'" in said[0]
    assert "more than any connected worker" in said[0]


def test_a_worker_that_streams_histories_takes_a_long_one(database_url):
    async def test(bench):
        worker = bench.connect(Worker(STREAMING))
        await bench.start("flow", "a", input="x" * (LIMIT // 2))
        await bench.answer(await worker.turn())
        for _ in range(2):
            await bench.service.raise_event("a", "go", "x" * (LIMIT // 2))
            await bench.answer(await worker.turn())
        await bench.service.raise_event("a", "go", None)
        item = await worker.turn()
        assert sum(map(len, item.past)) > LIMIT
        assert bench.board.past_of_turn("a", item.execution_id) == item.past
        assert bench.board.past_of_turn("a", None) == item.past
        assert bench.board.past_of_turn("a", "another execution") is None
        await bench.answer(item, finish())
        assert bench.board.past_of_turn("a", item.execution_id) is None

    on_bench(database_url, test)


def test_an_event_that_is_larger_than_a_piece_can_be_is_not_streamed(database_url):
    async def test(bench):
        capable = bench.connect(Worker())
        await bench.start("flow", "a", input="x" * LIMIT)
        await bench.answer(await capable.turn())
        streaming = bench.connect(Worker(STREAMING, turn_slots=1000))
        await bench.service.raise_event("a", "go", None)
        await capable.turn()
        assert streaming.turns.empty()

    on_bench(database_url, test)


def test_a_task_too_large_for_one_worker_goes_to_another_or_waits(database_url):
    async def test(bench):
        small = bench.connect(Worker(replace(SMALL, message_bytes=2 * 1024 * 1024)))
        await bench.start("flow", "a")
        await bench.answer(await small.turn(), *schedule("large", text="x" * 2 * 1024 * 1024),
                           *schedule("small", first=1))
        assert (await small.activity()).row.name == "small"
        capable = bench.connect(Worker())
        item = await capable.activity()
        assert len(item.row.event) > 2 * 1024 * 1024
        await bench.result(item)
        await bench.answer(await capable.turn(), finish())  # its history is too long for the other by now
        assert small.activities.empty()

    on_bench(database_url, test)


def test_names_that_no_index_can_hold_keep_nobody_else_from_committing(database_url):
    async def test(bench):
        worker = bench.connect(Worker(only(["flow"])))  # the activity is nobody's: it is written for all hosts to find
        await bench.start("flow", "a")
        await bench.start("flow", "b")
        items = {item.key.instance_id: item for item in [await worker.turn(), await worker.turn()]}
        name, version = ("".join(random.Random(seed).choices(string.ascii_letters, k=2_000)) for seed in (1, 2))
        bad = asyncio.create_task(bench.answer(items["a"], *schedule(name, version=version)))
        async with asyncio.timeout(5):
            await bench.answer(items["b"], finish())
            await bad
        assert await bench.status("b") == "COMPLETED"

    on_bench(database_url, test)
