"""gRPC's events come many at once, from a thread that interrupts nobody."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import uvloop

from durabletask_sql.sidecar.polling import events_in_bulk

# In a process of its own: gRPC starts its thread once, under the first loop.
_WITH_GRPC = """
import asyncio, os, threading
import grpc.aio
from durabletask_sql.sidecar import polling

taken, take = [], polling._take

def seen(source, handle):
    taken.append(source)
    take(source, handle)

async def main():
    polling._take = seen
    there = set(threading.enumerate())
    with polling.events_in_bulk(asyncio.get_running_loop()):
        server = grpc.aio.server()
    started = set(threading.enumerate()) - there
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await server.stop(None)
    print(len(started), {os.sched_getscheduler(thread.native_id) for thread in started} == {os.SCHED_BATCH}, bool(taken))

asyncio.run(main())
"""


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    reads, writes = socket.socketpair()
    with reads, writes:
        yield reads, writes


@pytest.fixture
def thread() -> Iterator[threading.Thread]:
    """A thread that runs, once started, until the test is over."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    yield thread
    end.set()
    if thread.ident is not None:
        thread.join()


async def rounds_of(sent: bytes, pair: tuple[socket.socket, socket.socket], starting: threading.Thread | None
                    ) -> list[bytes]:
    """Return what a reader like gRPC's reads, round by round, if it starts this thread before."""
    loop, rounds, (reads, writes) = asyncio.get_running_loop(), list[bytes](), pair
    with events_in_bulk(loop):
        if starting is not None:
            starting.start()
        loop.add_reader(reads, lambda: rounds.append(reads.recv(1)))
    writes.send(sent)
    for _ in range(3 * len(sent)):
        await asyncio.sleep(0)
    loop.remove_reader(reads)
    return rounds


@pytest.mark.parametrize("sent", [b"1", b"12345"])
def test_all_events_that_are_there_are_taken_in_one_round(
        runner: asyncio.Runner, pair: tuple[socket.socket, socket.socket], thread: threading.Thread, sent: bytes) -> None:
    assert runner.run(rounds_of(sent, pair, thread)) == [sent[-1:]]
    pair[0].settimeout(0)
    with pytest.raises(BlockingIOError):
        pair[0].recv(1)


def test_a_loop_beside_that_of_the_first_reads_as_ever(
        runner: asyncio.Runner, pair: tuple[socket.socket, socket.socket]) -> None:
    assert runner.run(rounds_of(b"123", pair, None)) == [b"1", b"2", b"3"]


@pytest.mark.skipif(sys.platform != "linux", reason="batch threads are Linux's")
def test_only_what_starts_inside_becomes_a_batch_thread(runner: asyncio.Runner, thread: threading.Thread) -> None:
    main = threading.main_thread().native_id or 0
    before = os.sched_getscheduler(main)
    with events_in_bulk(runner.get_loop()):
        thread.start()
    assert os.sched_getscheduler(main) == before
    assert os.sched_getscheduler(thread.native_id or 0) == os.SCHED_BATCH


@pytest.mark.skipif(sys.platform != "linux", reason="batch threads are Linux's")
def test_this_grpc_has_one_such_thread_and_one_such_socket() -> None:
    done = subprocess.run([sys.executable, "-c", _WITH_GRPC], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["1", "True", "True"]
