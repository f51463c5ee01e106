"""How gRPC's events reach the event loop: many at once, and without interrupting it.

gRPC polls on a thread of its own and wakes the loop over a socket, a byte an event. Most operations that the loop starts
are done at once, so that thread runs at once, on the loop's own processor where no other is free: some six times an item.
As a batch thread (sched(7)) it takes nobody's processor away. By the time it runs there are several events, and several
bytes; gRPC reads one at a time, each in a round of the loop, though with the first it has taken all events there are.
"""

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

_MOST_BYTES = 4096


@contextmanager
def events_in_bulk(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have the events of a gRPC that starts inside come this way.

    One that this process has started before is left alone: several loops then read its socket, and none may read on behalf
    of another.
    """
    there, add_reader = set(threading.enumerate()), loop.add_reader

    def started() -> set[threading.Thread]:
        return set(threading.enumerate()) - there

    def add(source: Any, callback: Callable[..., object], *args: object) -> None:
        handle = partial(callback, *args)
        add_reader(source, partial(_take, source, handle) if started() else handle)

    setattr(loop, "add_reader", add)  # noqa: B010 - of this loop alone
    try:
        yield
    finally:
        delattr(loop, "add_reader")
    for thread in started():
        _step_back(thread)


def _take(source: socket.socket, handle: Callable[[], object]) -> None:
    """Read all bytes but one, which gRPC reads itself before it takes the events: each was written after its event."""
    waiting = len(source.recv(_MOST_BYTES, socket.MSG_PEEK))
    if waiting > 1:
        source.recv(waiting - 1)
    handle()


def _step_back(thread: threading.Thread) -> None:
    if sys.platform == "linux" and thread.native_id is not None:
        with suppress(OSError):  # a sandbox may forbid it; then it interrupts as it did
            os.sched_setscheduler(thread.native_id, os.SCHED_BATCH, os.sched_param(0))
