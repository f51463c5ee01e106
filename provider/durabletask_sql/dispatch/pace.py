"""What a busy host does in groups: a group of several items costs hardly more than a group of one.

While items arrive as fast as a busy host can take them, a commit waits a moment until a few have come. Where few are out
at executors (one orchestration running alone, say) nobody waits: they rather depend on this very commit. Nor where items
come seldom: what a group of its own costs then hurts nobody, and waiting would. Where a wait was in vain (those that are
out take long, and what runs depends on this commit) the next commits do not wait, and more of them each time.

Nor does a turn run ahead of a commit while many items are out and come back fast: its executor has enough to do, and what
one commit brings goes out together.
"""

import asyncio

ENOUGH_ITEMS = 3  # SDK workers block a thread of few in each completion: waiting for more would starve them
MANY_ITEMS = 16  # out at executors: SDK workers have a handful of threads, what is beyond that waits at the worker
MANY_GAP_SECONDS = 0.005  # between arrivals; where they come less often a commit is well hidden behind a turn
BUSY_GAP_SECONDS = 0.0025  # on two busy cores, with one Python worker, an item came every 1.5 to 2.1 ms
LONGEST_WAIT_SECONDS = 0.006
MOST_SKIPPED = 127  # commits that do not wait, after waits in vain
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
        self._came = False  # somebody, during the last wait
        self._skipped = 0  # commits that did not wait after the last one in vain
        self._skips = 0  # and how many more will not

    def arrived(self, at: float, waiting: int) -> None:
        """Note an arrival, at this time in seconds; so many items wait now, this one among them."""
        self._gap += (min(at - self._last, _LONGEST_GAP_SECONDS) - self._gap) * _WEIGHT
        self._last = at
        self._came = True
        if waiting >= self._wanted:
            self._enough.set()

    def is_busy(self, outstanding: int) -> bool:
        """Tell whether many items are at executors, `outstanding`, and come back fast.

        Not after a wait in vain: what is out then takes long.
        """
        return outstanding >= MANY_ITEMS and self._gap <= MANY_GAP_SECONDS and not self._skipped

    async def gather(self, waiting: int, outstanding: int) -> None:
        """Wait until enough items have arrived, or a moment has passed; `outstanding` are at executors."""
        if waiting >= ENOUGH_ITEMS or outstanding < ENOUGH_ITEMS or self._gap > BUSY_GAP_SECONDS:
            return
        if self._skips:
            self._skips -= 1
            return
        self._wanted, self._came = ENOUGH_ITEMS, False
        self._enough.clear()
        timer = asyncio.get_running_loop().call_later(LONGEST_WAIT_SECONDS, self._enough.set)
        await self._enough.wait()
        timer.cancel()
        self._wanted = _NEVER
        self._skips = self._skipped = 0 if self._came else min(2 * self._skipped + 1, MOST_SKIPPED)
