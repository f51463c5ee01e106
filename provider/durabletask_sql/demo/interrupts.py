"""Ctrl-C and SIGTERM during the demo: they end it, and never between the start of a process and the note of it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_EXIT_CODE_BASE = 128


class Interrupts:
    """Raises SystemExit with the usual exit code at the first signal. One that comes while `held` waits for its end."""

    def __init__(self) -> None:
        """Begin with none; nothing is installed before `__enter__`."""
        self._holding = False
        self._pending: int | None = None

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the handlers: what comes now comes too late to matter."""
        self._holding = True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing interrupt what is done here."""
        before, self._holding = self._holding, True
        try:
            yield
        finally:
            self._holding = before
        if self._pending is not None and not self._holding:
            self._end(self._pending)

    def hold(self) -> None:
        """Let nothing interrupt what is done from now on: the demo takes its processes along."""
        self._holding = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._holding:
            self._pending = number
        else:
            self._end(number)

    def _end(self, number: int) -> None:
        self._holding = True
        raise SystemExit(_EXIT_CODE_BASE + number)
