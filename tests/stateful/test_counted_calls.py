"""Everything that the host asks of its store is seen by the stage, which lets no time pass meanwhile."""

from __future__ import annotations

import asyncio

from stateful.faults import Calls, Port


def test_the_steps_of_an_iterator_are_under_way_and_what_lies_between_them_is_not():
    calls = Calls()

    class Pages:
        async def pages(self, count):
            for number in range(count):
                assert calls.in_flight == ["pages"]
                yield number
            assert calls.in_flight == ["pages"]

    async def read():
        found = []
        async for page in Port(Pages(), calls).pages(2):
            assert calls.in_flight == []
            found.append(page)
        return found

    assert asyncio.run(read()) == [0, 1]
    assert calls.in_flight == []
