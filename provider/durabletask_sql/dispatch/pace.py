"""When a group has gathered enough: a group of several items costs hardly more than a group of one.

While items arrive as fast as a busy host can take them, a commit waits a moment until a few have come. Where few are out at
executors (one orchestration running alone, say) nobody waits: they rather depend on this very commit. Nor where items come
seldom: what a group of its own costs then hurts nobody, and waiting would.
"""

import asyncio

ENOUGH_ITEMS = 3  # SDK workers block a thread of few in each completion: waiting for more would starve them
BUSY_GAP_SECONDS = 0.0025
LONGEST_WAIT_SECONDS = 0.006
_WEIGHT = 0.125
_LONGEST_GAP_SECONDS = 1.0
_NEVER = 1 << 62


class Pace:
    """The pace of arrivals, and the wait that it justifies."""

    def __init__(self) -> None:
        """Begin slow: nothing waits."""
        self._gap = _LONGEST_GAP_SECONDS  # seconds between two arrivals, averaged over the last ones
        self._last = 0.0
        self._wanted = _NEVER
        self._enough = asyncio.Event()

    def arrived(self, at: float, waiting: int) -> None:
        """Note an arrival, at this time in seconds; so many items wait now, this one among them."""
        self._gap += (min(at - self._last, _LONGEST_GAP_SECONDS) - self._gap) * _WEIGHT
        self._last = at
        if waiting >= self._wanted:
            self._enough.set()

    async def gather(self, waiting: int, outstanding: int) -> None:
        """Wait until enough items have arrived, or a moment has passed; `outstanding` are at executors."""
        if waiting >= ENOUGH_ITEMS or outstanding < ENOUGH_ITEMS or self._gap > BUSY_GAP_SECONDS:
            return
        self._wanted = ENOUGH_ITEMS
        self._enough.clear()
        timer = asyncio.get_running_loop().call_later(LONGEST_WAIT_SECONDS, self._enough.set)
        await self._enough.wait()
        timer.cancel()
        self._wanted = _NEVER
