"""Where the time comes from.

Times are int microseconds since 1970 UTC everywhere in the project. Everything that needs the time takes a `Clock` (or
`now` as an argument); only this module asks the operating system.
"""

import time
from dataclasses import dataclass
from typing import Protocol

MICROSECONDS = 1_000_000


class Clock(Protocol):
    """A source of the present time."""

    def now(self) -> int:
        """Return the present time in microseconds since 1970 UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back, for measuring durations."""
        ...


class SystemClock:
    """The machine's clock: one reading of UTC at the start, then the monotonic clock, so that it never goes back.

    `set_offset` moves it to the database's time when the database's time is the one that counts.
    """

    def __init__(self) -> None:
        """Read UTC once."""
        self._base = time.time_ns() // 1_000 - time.monotonic_ns() // 1_000

    def now(self) -> int:
        """Return the present time in microseconds since 1970 UTC."""
        return self._base + time.monotonic_ns() // 1_000

    def monotonic(self) -> float:
        """Return seconds since an arbitrary moment."""
        return time.monotonic()

    def follow(self, reference: int) -> int:
        """Make `now()` agree with `reference` (microseconds UTC) and return by how much it moved, in microseconds."""
        moved = reference - self.now()
        self._base += moved
        return moved


@dataclass(slots=True)
class FakeClock:
    """A clock that only moves when it is told to."""

    value: int = 1_700_000_000 * MICROSECONDS

    def now(self) -> int:
        """Return the time that was set."""
        return self.value

    def monotonic(self) -> float:
        """Return the time that was set, in seconds."""
        return self.value / MICROSECONDS

    def advance(self, seconds: float) -> None:
        """Move forward."""
        self.value += int(seconds * MICROSECONDS)
