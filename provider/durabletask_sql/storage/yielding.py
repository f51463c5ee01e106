"""Synchronous work that may run on the event loop: it lets go of the loop while it waits for the database.

A hand-over to a thread and back costs a small transaction as much as its statements do, and whenever that thread has
waited, it waits for the interpreter as well. Here the same code runs as a greenlet: where a thread would block, it hands
what it waits for to the loop, which switches back to it when that is there.
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


class Job(greenlet.greenlet):
    """Work on the event loop."""

    abandoned = False


@dataclass(frozen=True, slots=True)
class Readiness:
    """A socket (its file descriptor) that can be read; `writes`: or written."""

    socket: int
    writes: bool


def waited_on_loop(socket: int, *, writes: bool) -> bool:
    """Wait for a socket if this is work on the loop; False, at once, on a thread, which may block.

    Raises AbandonedError.
    """
    job = greenlet.getcurrent()
    if not isinstance(job, Job):
        return False
    _hand_over(job, Readiness(socket, writes))
    return True


def off_loop(call: Callable[[], T]) -> T:
    """Return what a call gives that blocks: on a thread if this is work on the loop. Raises AbandonedError."""
    job = greenlet.getcurrent()
    if not isinstance(job, Job):
        return call()
    found: T = _hand_over(job, call)
    return found


def _hand_over(job: Job, request: Readiness | Callable[[], Any]) -> Any:
    if job.abandoned or job.parent is None:
        raise AbandonedError
    return job.parent.switch(request)


async def run(work: Callable[[], T], pool: ThreadPoolExecutor) -> T:
    """Run work on the event loop; `pool` takes what it has to block for.

    If this is cancelled, the work meets an AbandonedError where it waits, and wherever it wants to wait from then on.
    """
    job = Job(work)
    found: Any = job.switch()
    while not job.dead:
        try:
            answer = await _answer(found, pool)
        except Exception as error:
            found = job.throw(error)
        except BaseException:
            job.abandoned = True
            with suppress(Exception):
                job.throw(AbandonedError())
            raise
        else:
            found = job.switch(answer)
    done: T = found
    return done


async def _answer(request: Readiness | Callable[[], Any], pool: ThreadPoolExecutor) -> Any:
    loop = asyncio.get_running_loop()
    if not isinstance(request, Readiness):
        return await loop.run_in_executor(pool, request)
    ready = loop.create_future()
    loop.add_reader(request.socket, _tell, ready)
    if request.writes:
        loop.add_writer(request.socket, _tell, ready)
    try:
        await ready
    finally:
        loop.remove_reader(request.socket)
        if request.writes:
            loop.remove_writer(request.socket)
    return None


def _tell(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
