"""Does a server stay as it is under a steady load?

    python benchmarks/steady.py [--seconds 100] [--rate 8] [--only sqlite|postgresql] [--json FILE]

Journeys (a sequence, a fan-out, a timer, a child, large texts) come at a steady rate, are waited for and purged; others
are created for later and purged before. A worker stays, another one is killed every ten seconds with work in its hands.
What the server holds is read every second: its resident memory, its open files, its threads, and on SQLite the bytes of
the write-ahead log. The first third is for caches to fill; from the second to the third nothing may grow.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from durabletask.client import OrchestrationStatus, TaskHubGrpcClient

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent / "tests"
sys.path.insert(0, str(TESTS))

from hubs import Hub  # noqa: E402 - from the tests' folder
from postgres import create_database  # noqa: E402 - from the tests' folder
from postgres import server as postgres  # noqa: E402 - from the tests' folder
from server import ServerProcess  # noqa: E402 - from the tests' folder

_MEGABYTE = 1024 * 1024
_LIMITS = {"rss MB": (1.05, 4.0), "files": (1.0, 4.0), "threads": (1.0, 2.0), "wal MB": (1.0, 20.0)}  # times, plus


def sample(pid: int, wal: Path) -> dict[str, float]:
    """Return what a server holds now."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {"rss MB": int(status["VmRSS"].split()[0]) / 1024, "files": float(len(list(Path(f"/proc/{pid}/fd").iterdir()))),
            "threads": float(status["Threads"]), "wal MB": wal.stat().st_size / _MEGABYTE if wal.exists() else 0.0}


class Load:
    """Clients that come at a steady rate, until they are stopped."""

    def __init__(self, hub: Hub, rate: float) -> None:
        """Begin with the first."""
        self._hub = hub
        self._rate = rate
        self._stopped = threading.Event()
        self.done = 0
        self.late = 0

    def stop(self) -> None:
        """Let no more come."""
        self._stopped.set()

    def run(self) -> None:
        """Have them come until stopped; wait for those that are there."""
        with self._hub.client() as client, ThreadPoolExecutor(64) as pool:
            began, number, running = time.monotonic(), 0, list[Future[None]]()
            while not self._stopped.wait(max(0.0, began + number / self._rate - time.monotonic())):
                running = [one for one in running if not (one.done() and one.result() is None)]
                if len(running) < 64:
                    running.append(pool.submit(self._one, client, number))
                else:
                    self.late += 1
                number += 1
            for one in running:
                one.result()

    def _one(self, client: TaskHubGrpcClient, number: int) -> None:
        name = f"journey-{number}"
        client.schedule_new_orchestration("journey", input=number, instance_id=name)
        if number % 4 == 0:
            later = datetime.now(UTC) + timedelta(hours=1)
            client.schedule_new_orchestration("journey", input=1, instance_id=f"later-{number}", start_at=later)
            client.raise_orchestration_event(f"later-{number}", "early")
            client.terminate_orchestration(f"later-{number}")
            client.wait_for_orchestration_completion(f"later-{number}", timeout=120)
            client.purge_orchestration(f"later-{number}")
        state = client.wait_for_orchestration_completion(name, timeout=120)
        assert state is not None, name
        assert state.runtime_status is OrchestrationStatus.COMPLETED, state
        client.purge_orchestration(name)
        self.done += 1


@contextmanager
def worker(address: str, seconds: float | None) -> Iterator[None]:
    """Keep a worker that is killed again and again after so many seconds; None: it stays."""
    stopped = threading.Event()

    def run() -> None:
        while not stopped.is_set():
            process = subprocess.Popen([sys.executable, str(TESTS / "crash" / "flows.py"), address], stdin=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL)
            stopped.wait(seconds)
            process.kill()
            process.communicate()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def watch(url: str, folder: Path, options: argparse.Namespace) -> list[dict[str, float]]:
    """Run the load on a database; return what the server held, second by second."""
    served, samples = ServerProcess(url, folder / "server.log").start(), []
    hub, wal = Hub(served), Path(f"{url.removeprefix('sqlite:///')}-wal")
    load = Load(hub, options.rate)
    clients = threading.Thread(target=load.run)
    try:
        with worker(served.address, None), worker(served.address, 10.0):
            clients.start()
            until = time.monotonic() + options.seconds
            while time.monotonic() < until:
                time.sleep(1)
                samples.append(sample(served.pid, wal))
            load.stop()
            clients.join()
    finally:
        load.stop()
        with contextlib.suppress(AssertionError):
            served.stop()
    sys.stdout.write(f"{load.done} journeys, {load.late} left out because 64 were under way\n")
    return samples


def judge(samples: list[dict[str, float]]) -> dict[str, tuple[float, float, bool]]:
    """Return for each measure its median in the second and in the last third, and whether it has grown."""
    third, found = len(samples) // 3, {}
    for name, (times, plus) in _LIMITS.items():
        before, after = (statistics.median(one[name] for one in part) for part in (samples[third:2 * third],
                                                                                   samples[2 * third:]))
        found[name] = (before, after, after > before * times + plus)
    return found


def main() -> int:
    """Measure and say what has grown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=100, help="for each database (default: 100)")
    parser.add_argument("--rate", type=float, default=8.0, help="journeys a second (default: 8)")
    parser.add_argument("--only", choices=("sqlite", "postgresql"))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options, shown = parser.parse_args(), {}
    logging.disable(logging.WARNING)  # what the SDK says of each call
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        for kind in (options.only,) if options.only else ("sqlite", "postgresql"):
            url = f"sqlite:///{name}/hub.db" if kind == "sqlite" else create_database(stack.enter_context(postgres()))
            shown[kind] = judge(watch(url, Path(name), options))
            for measure, (before, after, grows) in shown[kind].items():
                sys.stdout.write(f"{kind:>10}  {measure:>7}  {before:8.1f} -> {after:8.1f}{'  grows' if grows else ''}\n")
    if options.json:
        options.json.write_text(json.dumps(shown, indent=2))
    return int(any(grows for found in shown.values() for _, _, grows in found.values()))


if __name__ == "__main__":
    sys.exit(main())
