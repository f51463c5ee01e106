"""What the demo shows, step by step."""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import grpc
from durabletask.client import OrchestrationState, OrchestrationStatus, TaskHubGrpcClient
from durabletask.history import HistoryEvent, TaskCompletedEvent, TaskFailedEvent, TaskScheduledEvent

from durabletask_sql.demo.interrupts import Interrupts
from durabletask_sql.demo.processes import Server, Worker, silent_logger
from durabletask_sql.demo.workflow import FAN_OUT, order_workflow
from durabletask_sql.errors import SettingsError

T = TypeVar("T")

ORDERS = 5
_EVENT = "shipping note"
_WAIT_SECONDS = 90
_PICKED = sum(range(FAN_OUT))
_RETRY_SECONDS = 0.1
_LOOK = "select instance_id, status, history_count from instances"
_WORK_BEFORE_KILL = 150


@dataclass(frozen=True)
class Finished:
    """One order as it ended, and what its history says of its activities."""

    state: OrchestrationState
    scheduled: int
    results: int
    twice: int


def run(options: argparse.Namespace) -> int:
    """Run the demo; return 0 when everything was as promised."""
    database = Path(options.database)
    _remove(database)
    with Interrupts() as interrupts:
        server, workers = Server(f"sqlite:///{database}", "--log-level", "error"), list[Worker]()
        try:
            return _show(server, workers, database, interrupts)
        finally:
            interrupts.hold()
            for worker in workers:
                worker.stop()
            server.stop()


def _show(server: Server, workers: list[Worker], database: Path, interrupts: Interrupts) -> int:
    _say(f"starting a server on a fresh SQLite file, {database}")
    with interrupts.held():
        server.start()
    _say(f"starting a worker of the durabletask SDK; both talk through {server.address}")
    with interrupts.held():
        workers.append(Worker(server.address))
    client = TaskHubGrpcClient(host_address=server.address, logger=silent_logger())
    began = time.monotonic()
    ids = [client.schedule_new_orchestration(order_workflow, input=f"order {number}", instance_id=f"order-{number}")
           for number in range(1, ORDERS + 1)]
    _say(f"{ORDERS} orders are under way, each with {FAN_OUT} items to pick")
    _get_half_way(client, ids)
    _say("killing the server with SIGKILL, in the middle of it")
    server.kill()
    _say("starting it again on the same file and port; the worker comes back by itself (its SDK waits some seconds)")
    with interrupts.held():
        server.start()
    for instance_id in ids:
        _patiently(partial(client.raise_orchestration_event, instance_id, _EVENT, data=f"parcel of {instance_id}"))
    _say("every order got its shipping note (an external event)")
    finished = [_finish(client, instance_id) for instance_id in ids]
    return _report(finished, time.monotonic() - began, database)


def _remove(database: Path) -> None:
    if database.is_dir():
        message = f"{database} is a folder: name a file for the demo with --database"
        raise SettingsError(message)
    for suffix in ("", "-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)


def _get_half_way(client: TaskHubGrpcClient, ids: list[str]) -> None:
    done = 0
    while done < _WORK_BEFORE_KILL:
        time.sleep(_RETRY_SECONDS)
        done = sum(_results(client.get_orchestration_history(instance_id)).total() for instance_id in ids)
        _progress(done, ORDERS * FAN_OUT)
    sys.stdout.write("\n")


def _finish(client: TaskHubGrpcClient, instance_id: str) -> Finished:
    state = _patiently(lambda: client.wait_for_orchestration_completion(instance_id, timeout=_WAIT_SECONDS))
    assert state is not None
    history = client.get_orchestration_history(instance_id)
    results = _results(history)
    _say(f"{instance_id}: {state.runtime_status.name}")
    return Finished(state, sum(isinstance(event, TaskScheduledEvent) for event in history), results.total(),
                    sum(count - 1 for count in results.values()))


def _results(history: list[HistoryEvent]) -> Counter[int]:
    """Count the results by the activity that they belong to."""
    return Counter(event.task_scheduled_id for event in history
                   if isinstance(event, TaskCompletedEvent | TaskFailedEvent))


def _patiently(call: Callable[[], T]) -> T:
    """Make a call that a server which is just coming back may refuse for a moment."""
    until = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > until:
                raise
            time.sleep(_RETRY_SECONDS)


def _report(finished: list[Finished], seconds: float, database: Path) -> int:
    sys.stdout.write(f"\n{'order':<10}{'status':<12}{'activities':>12}{'results':>10}{'twice':>8}{'seconds':>10}\n")
    good = True
    for order in finished:
        state = order.state
        took = (state.last_updated_at - state.created_at).total_seconds()
        sys.stdout.write(f"{state.instance_id:<10}{state.runtime_status.name:<12}{order.scheduled:>12}"
                         f"{order.results:>10}{order.twice:>8}{took:>10.1f}\n")
        output = json.loads(state.serialized_output or "{}")
        good &= (state.runtime_status is OrchestrationStatus.COMPLETED and output.get("picked") == _PICKED
                 and order.results == order.scheduled and order.twice == 0)
    total = sum(order.results for order in finished)
    if good:
        sys.stdout.write(f"\nAll {len(finished)} orders completed in {seconds:.1f} s, over a killed server: {total} "
                         "activity results, none lost, none counted twice.\n")
    else:
        sys.stdout.write("\nSomething is not as promised: see the table. Please report it, with the file.\n")
    sys.stdout.write(f"The file stays: look at it with `sqlite3 {database} {_LOOK!r}`,\n"
                     f"or serve it again with `durabletask-sql serve --database sqlite:///{database}`.\n")
    return 0 if good else 1


def _progress(done: int, total: int) -> None:
    sys.stdout.write(f"\r  {min(done, total)} of {total} items picked")
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stdout.write(f"- {text}\n")
    sys.stdout.flush()
