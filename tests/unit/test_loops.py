"""A loop that is to run until its host stops does not end in silence, however it ends."""

from __future__ import annotations

import asyncio

import pytest

from durabletask_sql.dispatch.loops import Loops
from durabletask_sql.errors import LoopEndedError


async def raises():
    message = "no such partition"
    raise KeyError(message)


async def says_nothing():
    raise ValueError


async def returns():
    pass


async def is_cancelled():
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def goes_on():
    await asyncio.Event().wait()


@pytest.mark.parametrize(("work", "how"), [
    (raises, "KeyError: 'no such partition'"), (says_nothing, "ValueError"), (returns, "it returned"),
    (is_cancelled, "CancelledError")])
def test_its_end_is_told_in_one_sentence_and_logged(work, how, caplog):
    told: list[LoopEndedError] = []

    async def test():
        loops = Loops("orders", told.append)
        loops.start("others", goes_on())
        assert not loops.have_failed
        loops.start("timers", work())
        await asyncio.sleep(0.01)
        assert loops.have_failed
        await loops.stop()

    asyncio.run(test())
    sentence = (f"the loop 'timers' of task hub 'orders' has ended by a bug ({how}): this host does no more work there, and "
                f"has to be started again")
    assert [str(error) for error in told] == [sentence]
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]


def test_a_stop_is_no_failure(caplog):
    told: list[LoopEndedError] = []

    async def ends_badly():
        try:
            await goes_on()
        finally:
            await raises()

    async def test():
        loops = Loops("orders", told.append)
        loops.start("timers", goes_on())
        loops.start("leases", ends_badly())
        await asyncio.sleep(0.01)
        await loops.stop()
        assert not loops.have_failed

    asyncio.run(test())
    assert told == []
    assert caplog.records == []
