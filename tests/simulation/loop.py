"""An event loop whose time jumps to the next timer, and on which a whole group of tasks can be frozen or killed.

Nothing sleeps, no thread runs and nothing is read from outside: what happens, and in what order, follows from the
program alone. Every callback belongs to the process (a `Process`) in whose context it was scheduled, if any.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_RESOLUTION = 1e-9


class NothingToDoError(Exception):
    """Everything waits, and nothing will ever come."""


class Process:
    """Tasks that stop, go on and die together, as those of an operating system's process do."""

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.name = name
        self.dead = self.frozen = False
        self._loop = loop
        self._parked: deque[asyncio.Handle] = deque()
        self._context = contextvars.copy_context()
        self._context.run(_PROCESS.set, self)
        loop.processes.append(self)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine in this process."""
        return self._loop.create_task(work, context=self._context.copy())

    def kill(self) -> None:
        """Run nothing of it ever again: no handler, no clean-up."""
        self.dead = True

    def freeze(self) -> None:
        """Run nothing of it until it is thawed."""
        self.frozen = True

    def thaw(self) -> None:
        """Go on with everything that came up meanwhile."""
        self.frozen = False
        self._loop.resume(self._parked)
        self._parked.clear()

    def holds(self, handle: asyncio.Handle) -> bool:
        """Tell whether a callback may not run now; it is kept."""
        if self.frozen or self.dead:
            self._parked.append(handle)
            return True
        return False


_PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop. `time` is in seconds since it was made."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[Any]

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []
        self._now = 0.0
        self._lawless = False
        self._tasks: list[asyncio.Task[Any]] = []  # what was killed is not to be collected, which would clean up
        self.steps = 0

    def time(self) -> float:
        return self._now

    def resume(self, handles: deque[asyncio.Handle]) -> None:
        """Let these callbacks run, in their order."""
        self._ready.extend(handles)

    def set_free(self) -> None:
        """Let everything run that was frozen or killed, so that it can be cancelled: the end of a run."""
        self._lawless = True
        for process in self.processes:
            process.thaw()

    def create_task(self, coro: Any, **named: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = super().create_task(coro, **named)
        self._tasks.append(task)
        return task

    def run_in_executor(self, _: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Run the function at once: there are no threads here."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _run_once(self) -> None:
        """Run what is ready; where nothing is, move time to the next timer."""
        scheduled, ready = self._scheduled, self._ready
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not ready and not self._stopping:  # type: ignore[attr-defined]  # asyncio's own
            if not scheduled:
                raise NothingToDoError
            self._now = max(self._now, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self._now + _RESOLUTION:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        for _ in range(len(ready)):
            self._run_handle(ready.popleft())

    def _run_handle(self, handle: Any) -> None:
        if handle._cancelled:
            return
        process = handle._context.get(_PROCESS)
        if process is None or self._lawless or not process.holds(handle):
            self.steps += 1
            handle._run()


def outside() -> Context:
    """Return a context that belongs to no process: for what goes on whatever happens to who asked for it."""
    context = contextvars.copy_context()
    context.run(_PROCESS.set, None)
    return context
