"""When a commit waits for others: only while they come as fast as a busy host can take them."""

from __future__ import annotations

import asyncio

import pytest

from durabletask_sql.dispatch.pace import (
    BUSY_GAP_SECONDS,
    ENOUGH_ITEMS,
    MANY_GAP_SECONDS,
    MANY_ITEMS,
    MOST_SKIPPED,
    Pace,
)

BRISK, CALM = 0.9 * BUSY_GAP_SECONDS, 1.1 * BUSY_GAP_SECONDS  # seconds between arrivals
LONGEST = "durabletask_sql.dispatch.pace.LONGEST_WAIT_SECONDS"


def paced(gap: float) -> tuple[Pace, float]:
    """A pace after many arrivals, and the time of the last."""
    pace = Pace()
    for number in range(200):
        pace.arrived(number * gap, 1)
    return pace, 199 * gap


def run(test):
    async def main():
        await asyncio.wait_for(test(), 10)

    asyncio.run(main())


@pytest.mark.parametrize(("gap", "waiting", "outstanding"), [
    (CALM, 1, 100),  # they come seldom: a group of its own hurts nobody
    (BRISK, 1, ENOUGH_ITEMS - 1),  # too few are out who could come
    (BRISK, ENOUGH_ITEMS, 100),  # enough are there
])
def test_a_commit_does_not_wait_for_nobody(gap, waiting, outstanding, monkeypatch):
    monkeypatch.setattr(LONGEST, 60.0)

    async def test():
        pace, _ = paced(gap)
        await pace.gather(waiting, outstanding)

    run(test)


def test_a_commit_waits_until_enough_have_come(monkeypatch):
    monkeypatch.setattr(LONGEST, 60.0)

    async def test():
        pace, last = paced(BRISK)
        gathering = asyncio.ensure_future(pace.gather(1, 100))
        for waiting in range(2, ENOUGH_ITEMS):
            await asyncio.sleep(0)
            last += BRISK
            pace.arrived(last, waiting)
            assert not gathering.done()
        pace.arrived(last, ENOUGH_ITEMS)
        await gathering

    run(test)


def test_a_commit_goes_when_the_moment_has_passed():
    async def test():
        pace, _ = paced(BRISK)
        await pace.gather(1, 100)  # nobody comes

    run(test)


async def waits(pace: Pace, came: float | None = None) -> bool:
    """Tell whether the next commit waits; others come while it does, the first at this time."""
    gathering = asyncio.ensure_future(pace.gather(1, 100))
    await asyncio.sleep(0)
    waited = not gathering.done()
    if waited and came is not None:
        for waiting in range(2, ENOUGH_ITEMS + 1):
            pace.arrived(came + BRISK * (waiting - 2), waiting)
    await gathering
    return waited


def test_after_waits_in_vain_few_commits_wait_until_somebody_has_come(monkeypatch):
    monkeypatch.setattr(LONGEST, 0.001)

    async def test():
        pace, last = paced(BRISK)
        assert sum([await waits(pace) for _ in range(500)]) < 12
        skipped = 0
        while not await waits(pace, last + BRISK):
            skipped += 1
        assert skipped <= MOST_SKIPPED
        assert await waits(pace)

    run(test)


@pytest.mark.parametrize(("gap", "outstanding", "busy"), [
    (0.9 * MANY_GAP_SECONDS, MANY_ITEMS, True),
    (1.1 * MANY_GAP_SECONDS, MANY_ITEMS, False),  # what is out takes its time
    (0.9 * MANY_GAP_SECONDS, MANY_ITEMS - 1, False),  # executors may have threads for more
])
def test_executors_have_enough_to_do_where_many_items_are_out_and_come_back_fast(gap, outstanding, busy):
    assert paced(gap)[0].is_busy(outstanding) is busy


def test_what_is_out_takes_long_where_a_wait_was_in_vain(monkeypatch):
    monkeypatch.setattr(LONGEST, 0.001)

    async def test():
        pace, last = paced(BRISK)
        assert await waits(pace)
        assert not pace.is_busy(MANY_ITEMS)
        while not await waits(pace, last + BRISK):
            pass
        assert pace.is_busy(MANY_ITEMS)

    run(test)
