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


class MovableClock(Clock, Protocol):
    """A clock that can be moved to the database's time."""

    def move(self, by: int) -> None:
        """Move the clock by so many microseconds, towards the database's time."""
        ...


class SystemClock:
    """The machine's clock: one reading of UTC at the start, then the monotonic clock, which nobody sets.

    `move` takes it to the database's time, which is the one that counts: PostgreSQL's, or for a SQLite file what the
    machine says now, which may have been set or have slept since the start.
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

    def move(self, by: int) -> None:
        """Move the clock by so many microseconds, towards the database's time."""
        self._base += by


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

    def move(self, by: int) -> None:
        """Stay: a test's time has nothing to do with the database's."""
