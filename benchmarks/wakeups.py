"""How soon a host runs what another one wrote, and what two idle hosts cost.

    python benchmarks/wakeups.py [--starts 500] [--idle 30] [--database sqlite|postgresql] [--json FILE]

Two servers on one database; the worker is connected to one of them, the client to the other. A start of an instance in
a partition of the worker's host is timed from the client's call to the work item's arrival, both in this process.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import sqlalchemy as sa
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal.orchestrator_service_pb2_grpc import TaskHubSidecarServiceStub

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from measures import cpu_seconds, sync_milliseconds  # noqa: E402 - beside this file

from durabletask_sql.ids import partition_of  # noqa: E402 - after the tests' folder
from postgres import create_database, server  # noqa: E402 - from the tests' folder
from server import ServerProcess  # noqa: E402

OWNERS = sa.text("SELECT p.partition, h.pid FROM partitions p LEFT JOIN hosts h ON h.host_id = p.owner")
COMMITS = sa.text("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
PAUSE_SECONDS = 0.02
SETTLE_SECONDS = 12.0  # beats and polls have become rare by then


def engine_of(url: str) -> sa.Engine:
    """Return an engine that keeps no connection, so that looking costs what it costs once."""
    return sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=sa.NullPool)


def partitions_of(engine: sa.Engine, pids: set[int]) -> dict[int, int]:
    """Return the process that owns each partition, once all these processes have some."""
    while True:
        with engine.connect() as connection:
            owners = {row.partition: row.pid for row in connection.execute(OWNERS)}
        if set(owners.values()) == pids:
            return owners
        time.sleep(0.1)


class Arrivals:
    """A worker that answers every turn with nothing, and knows when each instance's first turn came."""

    def __init__(self, stub: TaskHubSidecarServiceStub) -> None:
        """Connect."""
        self.times: dict[str, float] = {}
        self._stub = stub
        self._stream = stub.GetWorkItems(pb.GetWorkItemsRequest())
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(grpc.RpcError):  # the end of the stream
            for item in self._stream:
                if item.HasField("orchestratorRequest"):
                    instance_id = item.orchestratorRequest.instanceId
                    self.times.setdefault(instance_id, time.perf_counter())
                    self._stub.CompleteOrchestratorTask(pb.OrchestratorResponse(
                        instanceId=instance_id, completionToken=item.completionToken))

    def wait(self, instance_id: str, began: float) -> float:
        """Return the milliseconds from `began` to an instance's first turn."""
        while instance_id not in self.times:
            time.sleep(0.0005)
        return (self.times[instance_id] - began) * 1e3


@contextlib.contextmanager
def servers(url: str, folder: Path) -> Iterator[list[ServerProcess]]:
    """Two of them."""
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(2):
            started.append(ServerProcess(url, folder / f"server-{number}.log").start())
            stack.callback(started[-1].stop)
        yield started


def time_starts(url: str, near: ServerProcess, far: ServerProcess, count: int) -> list[float]:
    """Start instances at one server that another one owns; return the milliseconds until each one's first turn."""
    owners = partitions_of(engine_of(url), {near.pid, far.pid})
    ids = (name for name in map("start-{}".format, itertools.count())
           if owners[partition_of(name, len(owners))] == far.pid)
    with grpc.insecure_channel(near.address) as here, grpc.insecure_channel(far.address) as there:
        client, worker = TaskHubSidecarServiceStub(here), Arrivals(TaskHubSidecarServiceStub(there))
        found = []
        for instance_id in itertools.islice(ids, count + 20):
            began = time.perf_counter()
            client.StartInstance(pb.CreateInstanceRequest(instanceId=instance_id, name="flow"))
            found.append(worker.wait(instance_id, began))
            time.sleep(PAUSE_SECONDS)
    return sorted(found[20:])  # the first ones warm up


def idle_cost(url: str, both: list[ServerProcess], seconds: float) -> dict[str, float]:
    """Return the share of a core, and on PostgreSQL the transactions a second, of each idle host."""
    engine, pids = engine_of(url), [process.pid for process in both]
    time.sleep(SETTLE_SECONDS)
    if engine.dialect.name == "sqlite":
        before, began = cpu_seconds(pids), time.perf_counter()
        time.sleep(seconds)
        return {"percent_of_a_core": 100 * (cpu_seconds(pids) - before) / (time.perf_counter() - began) / len(pids)}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        commits, before, began = connection.execute(COMMITS).scalar_one(), cpu_seconds(pids), time.perf_counter()
        time.sleep(seconds)
        own = 2  # readings of this function, and what the first one waits for
        took, found = time.perf_counter() - began, connection.execute(COMMITS).scalar_one() - own
    return {"percent_of_a_core": 100 * (cpu_seconds(pids) - before) / took / len(pids),
            "transactions_a_second": (found - commits) / took / len(pids)}


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=500)
    parser.add_argument("--idle", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), help="only this one (default: both)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder, server() as maintenance:
        print(f"one fdatasync: {sync_milliseconds(Path(folder)):.2f} ms")
        for kind in [options.database] if options.database else ["sqlite", "postgresql"]:
            place = Path(folder) / kind
            place.mkdir()
            url = f"sqlite:///{place / 'hub.db'}" if kind == "sqlite" else create_database(maintenance)
            with servers(url, place) as (near, far):
                times = time_starts(url, near, far, options.starts)
                idle = idle_cost(url, [near, far], options.idle)
            results[kind] = {"p50_ms": statistics.median(times), "p99_ms": times[int(len(times) * 0.99)],
                             "max_ms": times[-1], **idle}
            print(kind, "  ".join(f"{name} {value:.2f}" for name, value in results[kind].items()))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
