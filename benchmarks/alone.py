"""What the server alone can do: loads like W1 to W3, answered from prepared bytes by workers without an SDK.

    python benchmarks/alone.py [--rounds 3] [--workers 1] [--database sqlite|postgresql] [--quick] [--json FILE]

An item is a turn or an activity. Processor time is read from /proc, of the server and of PostgreSQL's processes, so
that the figures say what an item costs whatever else the machine does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from measures import backends, cpu_seconds, sync_milliseconds  # noqa: E402 - beside this file

from postgres import create_database, server  # noqa: E402 - from the tests' folder
from server import ServerProcess  # noqa: E402


@dataclass(frozen=True)
class Load:
    """So many orchestrations at once, each of so many activities, and that so many times in a row."""

    title: str
    name: str
    size: int
    count: int
    times: int


LOADS = (Load("W1: 100 in sequence", "sequence", 100, 1, 10), Load("W2: fan-out of 1,000", "fan-out", 1_000, 1, 5),
         Load("W3: 500 of 5 in sequence", "sequence", 5, 500, 3))


@dataclass(frozen=True)
class Figures:
    """One load, once. Processor time is microseconds an item."""

    activities_a_second: float
    items_a_second: float
    turns: int
    activities: int
    server_cpu: float
    postgresql_cpu: float
    load_cpu: float


class LoadProcess:
    """A process of `load.py`, or of a program like it, that answers a line with a line."""

    def __init__(self, kind: str, address: str, program: str = "load.py") -> None:
        """Start it."""
        self._process = subprocess.Popen([sys.executable, str(HERE / program), kind, address], text=True,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self._process.pid

    def ask(self, question: str) -> Any:
        """Send a line and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def stop(self) -> None:
        """End its input and wait for it."""
        self._process.communicate(timeout=60)


class Bench:
    """A server with its load processes."""

    def __init__(self, process: ServerProcess, workers: list[LoadProcess], client: LoadProcess, maintenance: str | None
                 ) -> None:
        """`maintenance` is PostgreSQL's, if that is the database."""
        self._server = process
        self._workers = workers
        self._client = client
        self._maintenance = maintenance

    def run(self, load: Load, prefix: str, times: int) -> Figures:
        """Run a load and return what it took."""
        names = [f"{prefix}-{number}" for number in range(times)]
        pids = backends(self._maintenance) if self._maintenance is not None else []
        before, items = self._readings(pids), self._items()
        seconds = sum(self._client.ask(json.dumps({"prefix": name, "name": load.name, "size": load.size,
                                                   "count": load.count})) for name in names)
        turns, activities = (after - at for after, at in zip(self._items(), items, strict=True))
        costs = [(after - at) / (turns + activities) * 1e6
                 for after, at in zip(self._readings(pids), before, strict=True)]
        return Figures(activities / seconds, (turns + activities) / seconds, turns, activities, *costs)

    def _items(self) -> tuple[int, int]:
        """Return the turns and activities that the workers have had answered; wait until the number stands."""
        last, found = None, self._count()
        while found != last:
            time.sleep(0.02)  # the answer to the last item may still be on its way to its worker
            last, found = found, self._count()
        return found

    def _count(self) -> tuple[int, int]:
        counts = [worker.ask("") for worker in self._workers]
        return sum(count[0] for count in counts), sum(count[1] for count in counts)

    def _readings(self, pids: list[int]) -> tuple[float, float, float]:
        return (cpu_seconds([self._server.pid]), cpu_seconds(pids),
                cpu_seconds([self._client.pid, *(worker.pid for worker in self._workers)]))


@contextmanager
def bench(database: str, folder: Path, workers: int, maintenance: str | None) -> Iterator[Bench]:
    """A server on a fresh database with workers and a client, warmed up."""
    with ExitStack() as stack:
        process = ServerProcess(database, folder / "server.log").start()
        stack.callback(process.stop)
        client = LoadProcess("client", process.address)
        stack.callback(client.stop)
        running = [LoadProcess("worker", process.address) for _ in range(workers)]
        for worker in running:
            stack.callback(worker.stop)
        ready = Bench(process, running, client, maintenance)
        ready.run(LOADS[0], "warm-up", 1)
        yield ready


def measure(options: argparse.Namespace, folder: Path, maintenance: str) -> dict[str, dict[str, list[Figures]]]:
    """Run all rounds; databases alternate, each is fresh in each round."""
    kinds = [options.database] if options.database else ["sqlite", "postgresql"]
    results: dict[str, dict[str, list[Figures]]] = {kind: {load.title: [] for load in LOADS} for kind in kinds}
    for number in range(options.rounds):
        for kind in kinds:
            place = folder / f"{kind}-{number}"
            place.mkdir()
            url = f"sqlite:///{place / 'hub.db'}" if kind == "sqlite" else create_database(maintenance)
            with bench(url, place, options.workers, None if kind == "sqlite" else maintenance) as ready:
                for place_in_list, load in enumerate(LOADS):
                    times = 1 if options.quick else load.times
                    results[kind][load.title].append(ready.run(load, f"load-{place_in_list}", times))
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    return results


def report(results: dict[str, dict[str, list[Figures]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Print the table of medians; return them."""
    medians = {kind: {title: {name: statistics.median(getattr(one, name) for one in rounds) for name in asdict(rounds[0])}
                      for title, rounds in loads.items()} for kind, loads in results.items()}
    print(f"{'':<38}{'activities/s':>14}{'items/s':>10}{'turns':>8}{'server':>10}{'PostgreSQL':>12}{'load':>8}"
          "   (µs of processor time an item)")
    for kind, loads in medians.items():
        for title, one in loads.items():
            print(f"{kind + ', ' + title:<38}{one['activities_a_second']:>14.0f}{one['items_a_second']:>10.0f}"
                  f"{one['turns']:>8.0f}{one['server_cpu']:>10.0f}{one['postgresql_cpu']:>12.0f}{one['load_cpu']:>8.0f}")
    return medians


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="worker processes (default: 1)")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), help="only this one (default: both)")
    parser.add_argument("--quick", action="store_true", help="each load once a round, for trying it out")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, server() as maintenance:
        print(f"one fdatasync: {sync_milliseconds(Path(folder)):.2f} ms")
        medians = report(measure(options, Path(folder), maintenance))
    if options.json:
        options.json.write_text(json.dumps(medians, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
