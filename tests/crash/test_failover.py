"""A synchronous standby is promoted under load, its primary lost: nothing that was acknowledged is lost."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest

from checker import check_hub
from cluster import either, synchronous_pair
from crash.flows import RESULTS, expected
from crash.test_kills import FLOWS, patiently, results
from hubs import Hub
from server import ServerProcess

BEFORE, AFTER = 60, 100  # acknowledged before the primary is lost, and when it is


@pytest.fixture
def pair():
    with synchronous_pair() as found:
        yield found


def feed(client, acknowledged, far_enough, lost):
    """Start journeys one after the other, and note those that the server said to have."""
    left = AFTER
    for number in itertools.count():
        while True:
            try:
                client.schedule_new_orchestration("journey", input=number, instance_id=f"journey-{number}")
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.ALREADY_EXISTS:
                    break
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED):
                    raise
                threading.Event().wait(0.1)
                continue
            break
        acknowledged.append(number)
        if number == BEFORE:
            far_enough.set()
        if lost.is_set():
            left -= 1
            if not left:
                break


def test_a_promoted_standby_has_everything_that_was_acknowledged(pair, tmp_path: Path):
    primary, standby = pair
    server = ServerProcess(either(primary, standby), tmp_path / "server.log").start()
    worker = subprocess.Popen([sys.executable, str(FLOWS), server.address], stdin=subprocess.PIPE,
                              stderr=subprocess.DEVNULL)
    try:
        with Hub(server).client() as client:
            acknowledged, far_enough, lost = [], threading.Event(), threading.Event()
            feeder = threading.Thread(target=feed, args=(client, acknowledged, far_enough, lost), daemon=True)
            feeder.start()
            assert far_enough.wait(60)
            primary.stop(signal.SIGQUIT)
            at_the_loss = len(acknowledged)
            lost.set()
            standby.promote()
            feeder.join(120)
            assert len(acknowledged) >= at_the_loss + AFTER
            for number in acknowledged:
                name = f"journey-{number}"
                state = patiently(lambda name=name: client.wait_for_orchestration_completion(name, timeout=90))
                assert state is not None, f"{name} was acknowledged and is lost"
                assert state.serialized_output == str(expected(number)), state
                assert results(client, name) == RESULTS
            assert at_the_loss >= BEFORE
        assert check_hub(standby.url) == []
        assert server.stop() == 0
    finally:
        worker.kill()
        worker.communicate()
        if server.is_running(0):
            server.kill()
