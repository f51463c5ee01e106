"""What the database refuses, and refuses to have set aside as well: by triggers, as an operator may have made them."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing

import psycopg
import pytest

from dispatch.bench import Worker, finish, on_bench, schedule
from dispatch.test_poison import aside


def execute(url, *statements):
    """Run statements past everything of this project."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)
        return
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def forbid(url, table, instance_id):
    """Have the database refuse new rows of an instance in a table."""
    condition = f"NEW.instance_id = '{instance_id}'"
    if url.startswith("sqlite"):
        execute(url, f"CREATE TRIGGER no_{table} BEFORE INSERT ON {table} WHEN {condition} "
                     "BEGIN SELECT RAISE(ABORT, 'forbidden'); END")
    else:
        execute(url, "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                     "$$ BEGIN RAISE EXCEPTION 'forbidden'; END $$",
                f"CREATE TRIGGER no_{table} BEFORE INSERT ON {table} FOR EACH ROW WHEN ({condition}) "
                "EXECUTE FUNCTION refuse()")


def allow(url, table):
    execute(url, f"DROP TRIGGER no_{table}" + ("" if url.startswith("sqlite") else f" ON {table}"))


@pytest.fixture
def delays(monkeypatch):
    """The delays that were asked for, by how many times in a row; short ones."""
    asked = []
    for module in ("delays", "refusals"):
        monkeypatch.setattr(f"durabletask_sql.dispatch.{module}.delay_seconds", lambda times: asked.append(times) or 0.05)
    return asked


def reports(caplog):
    return [record.getMessage() for record in caplog.records if "refuses to" in record.getMessage()]


def test_a_turn_that_cannot_even_be_set_aside_goes_again_after_growing_delays(database_url, delays, caplog):
    async def test(bench):
        forbid(database_url, "history", "bad")
        forbid(database_url, "quarantine", "bad")
        worker = bench.connect(Worker())
        await bench.start("flow", "bad")
        for times in range(1, 5):
            item = await worker.turn()
            assert len(delays) == times - 1
            await bench.answer(item, finish())
        await bench.start("flow", "good")
        items = {item.key.instance_id: item for item in [await worker.turn(), await worker.turn()]}
        await bench.answer(items["good"], finish())
        assert await bench.status("good") == "COMPLETED"
        assert delays == [1, 2, 3, 4]
        assert len(reports(caplog)) == 1
        allow(database_url, "history")
        await bench.answer(items["bad"], finish())
        assert await bench.status("bad") == "COMPLETED"
        assert await aside(bench) == []

    with caplog.at_level(logging.ERROR, "durabletask_sql"):
        on_bench(database_url, test)


def test_a_task_that_cannot_even_be_set_aside_is_set_aside_later(database_url, delays, caplog):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "bad")
        await bench.answer(await worker.turn(), *schedule("act"))
        item = await worker.activity()
        forbid(database_url, "control_queue", "bad")
        forbid(database_url, "quarantine", "bad")
        await bench.result(item)
        await bench.until(lambda: len(delays) == 3)
        allow(database_url, "quarantine")

        async def is_aside():
            return len(await aside(bench)) == 1

        await bench.until_true(is_aside)
        assert delays[:3] == [1, 2, 3]
        assert len(reports(caplog)) == 1

    with caplog.at_level(logging.ERROR, "durabletask_sql"):
        on_bench(database_url, test)
