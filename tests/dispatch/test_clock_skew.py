"""A host whose clock is wrong: the database's time counts, on SQLite what the machine's clock says now (S-388)."""

from __future__ import annotations

import time

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from dispatch.bench import Worker, on_bench, schedule
from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.dispatch import ownership
from durabletask_sql.dispatch.ownership import Ownership
from semantics.acts import kinds, new, timer
from tables import rows

HOUR = 3600
LATE = 10 * MICROSECONDS


def now():
    """The time of this machine, which is the database's."""
    return time.time_ns() // 1_000


def stamp(micros):
    found = Timestamp()
    found.FromMicroseconds(micros)
    return found


def clock_of(item):
    return new(item)[0].timestamp.ToMicroseconds()


@pytest.fixture
def round_trips(monkeypatch):
    """How long each heartbeat took: the database's time is known as exactly as the question for it is quick."""
    found, renew = [], Ownership._renew

    async def timed(self):
        began = time.monotonic_ns()
        await renew(self)
        found.append((time.monotonic_ns() - began) // 1_000 + 1)

    monkeypatch.setattr(Ownership, "_renew", timed)
    return found


@pytest.mark.parametrize("off", [-3 * HOUR, 3 * HOUR, -400 * 24 * HOUR], ids=["slow", "fast", "a year"])
def test_scheduled_starts_and_timers_follow_the_databases_time(database_url, off, round_trips):
    async def test(bench):
        worker = bench.connect(Worker())
        at = now() + MICROSECONDS // 4
        await bench.start("flow", "one", start_at=at)
        assert await bench.status("one") == "PENDING"
        item = await worker.turn()
        assert at < clock_of(item) < at + LATE
        due = now() + MICROSECONDS // 4
        await bench.answer(item, timer(1, stamp(due)))
        item = await worker.turn()
        assert kinds(new(item)) == ["orchestratorStarted", "timerFired"]
        assert due < clock_of(item) < due + LATE
        assert now() > due - max(round_trips)
        row = (await bench.service.get("one", payloads=False)).row
        assert abs(row.created_at - at) < LATE

    on_bench(database_url, test, off=off)


@pytest.mark.parametrize("by", [-3 * HOUR, 3 * HOUR], ids=["back", "ahead"])
def test_a_clock_that_jumps_is_brought_back_with_the_next_heartbeat(database_url, by, round_trips, monkeypatch, caplog):
    """What jumps back would keep timers from firing, and what jumps ahead would fire them early."""
    monkeypatch.setattr(ownership, "_LONGEST_BEAT_SECONDS", 0.5)

    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        item = await worker.turn()
        bench.clock.move(by * MICROSECONDS)
        await bench.until(lambda: abs(bench.clock.now() - now()) < LATE)
        due = now() + MICROSECONDS // 4
        await bench.answer(item, timer(1, stamp(due)))
        item = await worker.turn()
        assert due < clock_of(item) < due + LATE
        assert now() > due - max(round_trips)

    on_bench(database_url, test)
    assert "moved apart by" in caplog.text


@pytest.mark.parametrize("off", [-3 * HOUR, 0, 3 * HOUR], ids=["slow", "right", "fast"])
def test_an_activity_that_takes_longer_than_a_lease_is_out_once_and_counts(database_url, off):
    """The lease is renewed and judged by one clock, so that a wrong one here ends it neither early nor late."""
    lease = "SELECT expires_at FROM hosts"

    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        await bench.answer(await worker.turn(), *schedule("act"))
        item = await worker.activity()
        first = rows(database_url, lease)[0][0]
        await bench.until(lambda: rows(database_url, lease)[0][0] > first + MICROSECONDS)
        assert worker.activities.empty()
        await bench.result(item, "after all")
        assert new(await worker.turn())[1].taskCompleted.result.value == "after all"

    on_bench(database_url, test, lease_seconds=1.0, off=off)
