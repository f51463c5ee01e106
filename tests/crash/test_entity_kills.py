"""SIGKILL of the server, and of the worker, under a counter: every acknowledged signal counts exactly once.

Orchestrations that lock two counters run beside it: none of them waits for a lock for ever.
"""

from __future__ import annotations

import json
import os
import random
import time

import grpc
import pytest
from durabletask.client import OrchestrationStatus
from durabletask.entities import EntityInstanceId

from checker import check_hub
from crash.test_kills import KILLS, SEEDS, client, patiently, server, worker  # noqa: F401 # fixtures
from sdk.test_entities import eventually

SIGNALS = int(os.environ.get("DURABLETASK_SQL_SIGNALS", "400"))
MOVES = 30
COUNTER = EntityInstanceId("counter", "signals")


def signal_all(caller, kill, seed):
    """Signal without end from here, and kill from time to time; return how many were acknowledged, and how many not."""
    moments = sorted(random.Random(seed).sample(range(10, SIGNALS), KILLS))
    acknowledged = unknown = 0
    for number in range(SIGNALS):
        if moments and number == moments[0]:
            moments.pop(0)
            kill()
        try:
            caller.signal_entity(COUNTER, "add", 1)
            acknowledged += 1
        except grpc.RpcError:
            unknown += 1
            time.sleep(0.05)  # nothing tells a client that a server is back but asking it
    return acknowledged, unknown


def counted(caller, least, most):
    """Wait until the counter stands still, and return where."""
    value, same, until = -1, 0, time.monotonic() + 90
    while same < 10:
        found = patiently(lambda: caller.get_entity(COUNTER))
        now = 0 if found is None else json.loads(found.get_state())
        same = same + 1 if now == value and now >= least else 0
        value = now
        assert time.monotonic() < until, (value, least, most)
        time.sleep(0.05)  # a client has no other way to see that nothing comes any more
    return value


def move_all(caller):
    return [patiently(lambda number=number: caller.schedule_new_orchestration(
        "move", input=["ab", "ba"][number % 2], instance_id=f"move-{number}")) for number in range(MOVES)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("victim", ["server", "worker"])
def test_every_acknowledged_signal_counts_exactly_once(database_url, server, worker, client, victim, seed):  # noqa: F811 # fixtures
    def kill():
        if victim == "server":
            server.kill()
            server.start()
        worker.kill()
        worker.start()

    ids = move_all(client)
    acknowledged, unknown = signal_all(client, kill, seed)
    value = counted(client, acknowledged, acknowledged + unknown)
    # A signal whose answer was lost with the server may have counted; it too counts once.
    assert acknowledged <= value <= acknowledged + unknown
    assert acknowledged >= SIGNALS // 2
    for instance_id in ids:
        state = patiently(lambda instance_id=instance_id: client.wait_for_orchestration_completion(instance_id, timeout=90))
        assert state.runtime_status == OrchestrationStatus.COMPLETED, state
    both = [json.loads(patiently(lambda key=key: client.get_entity(EntityInstanceId("counter", key))).get_state())
            for key in "ab"]
    assert sum(both) == 0
    eventually(lambda: check_hub(database_url), [])  # the last locks may still be on their way back
