"""Synchronous work that may run on the event loop: it lets go of the loop while it waits for the database.

A hand-over to a thread and back costs a small transaction as much as its statements do, and whenever that thread has
waited, it waits for the interpreter as well. Here the same code runs as a greenlet: where a thread would block, it hands
what it waits for to the loop, which switches back to it when that is there. The greenlet stays from one piece of work to
the next: its first frame maps memory, and its last unmaps it.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import greenlet

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Readiness:
    """A socket (its file descriptor) that can be read; `writes`: or written."""

    socket: int
    writes: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a piece of work."""

    result: Any = None
    error: BaseException | None = None


class Side(greenlet.greenlet):
    """Where work runs on the event loop, a piece at a time. The loop's callbacks switch to it: no task is needed."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        """Begin beside the running loop; `pool` takes what work has to block for."""
        super().__init__(self._work)
        self._beside = greenlet.getcurrent()
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._done: Callable[[Ended], None]

    def carry_out(self, work: Callable[[], object], done: Callable[[Ended], None]) -> None:
        """Run work until it waits, and whenever that is there, on to its end; then call `done`."""
        self._done = done
        self._follow(self.switch(work))

    def hand_over(self, request: Readiness | Callable[[], Any]) -> Any:
        """Have the loop answer a request, from inside the work."""
        return self._beside.switch(request)

    def _work(self, work: Callable[[], object]) -> None:
        while True:
            work = self._beside.switch(ended(work))

    def _follow(self, found: Any) -> None:
        """See to what the work handed over: its end, or what it waits for."""
        if isinstance(found, Readiness):
            self._loop.add_reader(found.socket, self._go_on, found)
            if found.writes:
                self._loop.add_writer(found.socket, self._go_on, found)
        elif isinstance(found, Ended):
            self._done(found)
        else:
            self._block(found)

    def _block(self, call: Callable[[], Any]) -> None:
        try:
            answer = self._loop.run_in_executor(self._pool, call)
        except RuntimeError as error:  # the pool has shut down
            self._follow(self.throw(error))
        else:
            answer.add_done_callback(self._answer)

    def _go_on(self, waited_for: Readiness) -> None:
        # Not watched on: libpq closes a socket that is lost, and the next one may get its number.
        self._loop.remove_reader(waited_for.socket)
        if waited_for.writes:
            self._loop.remove_writer(waited_for.socket)
        self._follow(self.switch(None))

    def _answer(self, answer: asyncio.Future[Any]) -> None:
        error = answer.exception()
        self._follow(self.switch(answer.result()) if error is None else self.throw(error))


def ended(work: Callable[[], object]) -> Ended:
    """Run work; return what became of it."""
    try:
        return Ended(work())
    except BaseException as error:
        return Ended(error=error)  # raised where the work was asked for


def waited_on_loop(socket: int, *, writes: bool) -> bool:
    """Wait for a socket if this is work on the loop; False, at once, on a thread, which may block."""
    side = greenlet.getcurrent()
    if not isinstance(side, Side):
        return False
    side.hand_over(Readiness(socket, writes))
    return True


def off_loop(call: Callable[[], T]) -> T:
    """Return what a call gives that blocks: on a thread if this is work on the loop."""
    side = greenlet.getcurrent()
    if not isinstance(side, Side):
        return call()
    found: T = side.hand_over(call)
    return found
