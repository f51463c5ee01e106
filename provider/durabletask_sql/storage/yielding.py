"""Synchronous work that may run on the event loop: it lets go of the loop while it waits for the database.

A hand-over to a thread and back costs a small transaction as much as its statements do, and whenever that thread has
waited, it waits for the interpreter as well. Here the same code runs as a greenlet: where a thread would block, it hands
what it waits for to the loop, which switches back to it when that is there. The greenlet and what it waits for stay from
one piece of work to the next: to make them anew costs more than to wait.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import greenlet

T = TypeVar("T")


class AbandonedError(Exception):
    """The loop has ended, or gives up this work: nobody will switch back to it."""


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


class Watch:
    """A socket as the loop watches it: from the first wait on, until something stays there for which nobody waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: int) -> None:
        """Take the parts; nothing is watched yet."""
        self._loop = loop
        self._socket = socket
        self._watching = False
        self._ready: asyncio.Future[None] | None = None
        self._in_vain = False  # told last when nobody waited: once may be the end of what was waited for

    async def wait(self, *, writes: bool) -> None:
        """Wait until the socket can be read; `writes`: or written."""
        ready = self._ready = self._loop.create_future()
        if not self._watching:
            self._watching = True
            self._loop.add_reader(self._socket, self._tell)
        if not writes:
            await ready
            return
        self._loop.add_writer(self._socket, self._tell)
        try:
            await ready
        finally:
            self._loop.remove_writer(self._socket)

    def _tell(self) -> None:
        if self._ready is not None and not self._ready.done():
            self._in_vain = False
            self._ready.set_result(None)
        elif self._in_vain:
            self.end()
        else:
            self._in_vain = True

    def end(self) -> None:
        """Watch it no more."""
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._socket)


class Side(greenlet.greenlet):
    """Where work runs on the event loop, a piece at a time."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        """Begin beside the running loop; `pool` takes what work has to block for."""
        super().__init__(self._work)
        self._beside = greenlet.getcurrent()
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._watches: dict[int, Watch] = {}
        self._abandoned = False

    async def carry_out(self, work: Callable[[], T]) -> T:
        """Run work to its end.

        If this is cancelled, the work meets an AbandonedError where it waits, and wherever it wants to wait from then on.
        """
        self._abandoned = False
        found: Any = self.switch(work)
        while not isinstance(found, Ended):
            try:
                answer = await self._answer(found)
            except Exception as error:
                found = self.throw(error)
            except BaseException:
                self._abandoned = True
                with suppress(Exception):
                    self.throw(AbandonedError())
                raise
            else:
                found = self.switch(answer)
        if found.error is not None:
            try:
                raise found.error
            finally:
                del found  # else the error, by its traceback, would refer to itself
        done: T = found.result
        return done

    def hand_over(self, request: Readiness | Callable[[], Any]) -> Any:
        """Have the loop answer a request, from inside the work. Raises AbandonedError."""
        if self._abandoned:
            raise AbandonedError
        return self._beside.switch(request)

    def forget(self, socket: int) -> None:
        """Watch a socket no more, which is about to be closed."""
        watch = self._watches.pop(socket, None)
        if watch is not None:
            watch.end()

    def forget_all(self) -> None:
        """Watch nothing more: what runs elsewhere next may close it."""
        for socket in tuple(self._watches):
            self.forget(socket)

    def _work(self, work: Callable[[], Any]) -> None:
        while True:
            work = self._beside.switch(_ended(work))

    async def _answer(self, request: Readiness | Callable[[], Any]) -> Any:
        if not isinstance(request, Readiness):
            return await self._loop.run_in_executor(self._pool, request)
        watch = self._watches.get(request.socket)
        if watch is None:
            watch = self._watches[request.socket] = Watch(self._loop, request.socket)
        await watch.wait(writes=request.writes)
        return None


def _ended(work: Callable[[], Any]) -> Ended:
    try:
        return Ended(work())
    except greenlet.GreenletExit:  # nobody refers to this greenlet any more
        raise
    except BaseException as error:
        return Ended(error=error)  # raised where the work was asked for


def waited_on_loop(socket: int, *, writes: bool) -> bool:
    """Wait for a socket if this is work on the loop; False, at once, on a thread, which may block.

    Raises AbandonedError.
    """
    side = greenlet.getcurrent()
    if not isinstance(side, Side):
        return False
    side.hand_over(Readiness(socket, writes))
    return True


def off_loop(call: Callable[[], T]) -> T:
    """Return what a call gives that blocks: on a thread if this is work on the loop. Raises AbandonedError."""
    side = greenlet.getcurrent()
    if not isinstance(side, Side):
        return call()
    found: T = side.hand_over(call)
    return found


def closing(socket: int) -> None:
    """Say that a socket is about to be closed: its number may soon be another's."""
    side = greenlet.getcurrent()
    if isinstance(side, Side):
        side.forget(socket)
