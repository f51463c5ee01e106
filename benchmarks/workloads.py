"""The four workloads, on the unmodified SDK. Run as a process: `python workloads.py worker|client ADDRESS ...`."""

from __future__ import annotations

import json
import logging
import statistics
import sys
import time
from collections.abc import Generator
from typing import Any

from durabletask import task
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.worker import ConcurrencyOptions, TaskHubGrpcWorker

STEPS, FAN, MANY, EACH, EMPTIES = 100, 1_000, 500, 5, 50
_TIMEOUT_SECONDS = 300

Flow = Generator[task.Task[Any], Any, Any]


def silent() -> logging.Logger:
    """Return a logger that writes nothing."""
    logger = logging.Logger("benchmark")  # noqa: LOG001 - outside the tree of loggers on purpose
    logger.addHandler(logging.NullHandler())
    return logger


def step(_: task.ActivityContext, number: int) -> int:
    """Do nothing."""
    return number


def empty(_: task.OrchestrationContext, __: None) -> str:
    """End at once."""
    return "done"


def sequence(ctx: task.OrchestrationContext, count: int) -> Flow:
    """Run activities one after the other."""
    for number in range(count):
        yield ctx.call_activity(step, input=number)
    return count


def fan_out(ctx: task.OrchestrationContext, count: int) -> Flow:
    """Run activities all at once."""
    results = yield task.when_all([ctx.call_activity(step, input=number) for number in range(count)])
    return sum(results)


def work(address: str, threads: int | None) -> None:
    """Be the worker until standard input ends; `threads` None: as many as the SDK takes by itself."""
    worker = TaskHubGrpcWorker(host_address=address, logger=silent(),
                               concurrency_options=ConcurrencyOptions(maximum_thread_pool_workers=threads))
    for orchestrator in (empty, sequence, fan_out):
        worker.add_orchestrator(orchestrator)
    worker.add_activity(step)
    worker.start()
    sys.stdin.read()
    worker.stop()


def measure(address: str, quick: bool) -> dict[str, float]:  # noqa: FBT001 - a command's flag
    """Run each workload once; return W1 steps/s, W2 activities/s, W3 orchestrations/s, W4 milliseconds."""
    client = TaskHubGrpcClient(host_address=address, logger=silent())
    _finish(client, [client.schedule_new_orchestration(sequence, input=3)])  # warm up
    steps, fan, many = (STEPS // 5, FAN // 10, MANY // 10) if quick else (STEPS, FAN, MANY)
    began = time.perf_counter()
    _finish(client, [client.schedule_new_orchestration(sequence, input=steps)])
    w1 = steps / (time.perf_counter() - began)
    began = time.perf_counter()
    _finish(client, [client.schedule_new_orchestration(fan_out, input=fan)])
    w2 = fan / (time.perf_counter() - began)
    began = time.perf_counter()
    _finish(client, [client.schedule_new_orchestration(sequence, input=EACH) for _ in range(many)])
    w3 = many / (time.perf_counter() - began)
    times = []
    for _ in range(EMPTIES // 5 if quick else EMPTIES):
        began = time.perf_counter()
        _finish(client, [client.schedule_new_orchestration(empty)])
        times.append(time.perf_counter() - began)
    client.close()
    return {"W1": w1, "W2": w2, "W3": w3, "W4": statistics.median(times) * 1e3}


def _finish(client: TaskHubGrpcClient, ids: list[str]) -> None:
    for instance_id in ids:
        state = client.wait_for_orchestration_completion(instance_id, timeout=_TIMEOUT_SECONDS, fetch_payloads=False)
        if state is None or state.runtime_status is not OrchestrationStatus.COMPLETED:
            message = f"{instance_id} did not complete: {state}"
            raise AssertionError(message)


def memory_backend() -> None:
    """Be the SDK's in-memory back end on a port until standard input ends; say when it is ready."""
    from durabletask.testing import create_test_backend  # noqa: PLC0415 - only this process needs it

    backend = create_test_backend(port=int(sys.argv[2]))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    backend.stop()


if __name__ == "__main__":
    match sys.argv[1]:
        case "worker":
            work(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None)
        case "memory":
            memory_backend()
        case _:
            sys.stdout.write(json.dumps(measure(sys.argv[2], quick="--quick" in sys.argv)))
