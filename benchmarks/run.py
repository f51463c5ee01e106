"""W1 to W4 against this server on SQLite and PostgreSQL, and against the SDK's in-memory back end, in one run.

    python benchmarks/run.py [--rounds 5] [--threads N] [--quick] [--json FILE]

Every back end, the worker and the client are processes of their own; back ends alternate within each round. Medians
and ratios are what counts: machines are shared and noisy.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from measures import sync_milliseconds  # noqa: E402 - beside this file

from postgres import create_database, server  # noqa: E402 - from the tests' folder
from server import ServerProcess  # noqa: E402

NAMES = ("W1", "W2", "W3", "W4")
UNITS = {"W1": "steps/s", "W2": "activities/s", "W3": "orchestrations/s", "W4": "ms"}
BARS = {"sqlite": {"W1": 0.8, "W2": 0.8, "W3": 0.8}, "postgresql": {"W1": 0.7, "W2": 0.8, "W3": 0.8}}
W4_BAR = 1.5


@contextmanager
def memory() -> Iterator[str]:
    """The SDK's in-memory back end; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(HERE / "workloads.py"), "memory", str(port)],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.communicate(timeout=30)


@contextmanager
def ours(database: str, folder: Path) -> Iterator[str]:
    """This server; yields its address."""
    process = ServerProcess(database, folder / "server.log").start()
    try:
        yield process.address
    finally:
        process.stop()


def run_workloads(address: str, options: argparse.Namespace) -> dict[str, float]:
    """Run a worker and a client against an address."""
    threads = [str(options.threads)] if options.threads else []
    worker = subprocess.Popen([sys.executable, str(HERE / "workloads.py"), "worker", address, *threads],
                              stdin=subprocess.PIPE)
    try:
        command = [sys.executable, str(HERE / "workloads.py"), "client", address,
                   *(["--quick"] if options.quick else [])]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        result: dict[str, float] = json.loads(done.stdout)
        return result
    finally:
        worker.communicate(timeout=60)


def measure(options: argparse.Namespace, folder: Path, maintenance: str) -> dict[str, list[dict[str, float]]]:
    """Run all rounds; each back end gets a fresh database in each."""
    results: dict[str, list[dict[str, float]]] = {"memory": [], "sqlite": [], "postgresql": []}
    for number in range(options.rounds):
        place = folder / str(number)
        place.mkdir()
        with memory() as address:
            results["memory"].append(run_workloads(address, options))
        with ours(f"sqlite:///{place / 'hub.db'}", place) as address:
            results["sqlite"].append(run_workloads(address, options))
        url = create_database(maintenance)
        os.sync()  # what the others have written is not written back at this one's expense
        with ours(url, place) as address:
            results["postgresql"].append(run_workloads(address, options))
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    return results


def report(results: dict[str, list[dict[str, float]]], sync: float) -> dict[str, object]:
    """Print the table; return the figures."""
    medians = {kind: {name: statistics.median(one[name] for one in rounds) for name in NAMES}
               for kind, rounds in results.items()}
    print(f"\n{'':<12}" + "".join(f"{name + ' ' + UNITS[name]:>22}" for name in NAMES))
    for kind, values in medians.items():
        print(f"{kind:<12}" + "".join(f"{values[name]:>22.1f}" for name in NAMES))
    ratios = {kind: {name: medians[kind][name] / medians["memory"][name] for name in NAMES}
              for kind in ("sqlite", "postgresql")}
    for kind, values in ratios.items():
        print(f"{kind + ' ratio':<18}" + "".join(f"{values[name]:>16.2f}      " for name in NAMES))
    limit = W4_BAR * medians["memory"]["W4"] + 2 * sync
    print(f"\none fdatasync: {sync:.2f} ms; W4 at most {limit:.1f} ms")
    missed = [f"{kind} {name} {ratios[kind][name]:.2f} < {bar}" for kind, bars in BARS.items()
              for name, bar in bars.items() if ratios[kind][name] < bar]
    missed += [f"{kind} W4 {medians[kind]['W4']:.1f} ms > {limit:.1f} ms" for kind in BARS
               if medians[kind]["W4"] > limit]
    print("bars: " + ("all met" if not missed else "missed: " + "; ".join(missed)))
    return {"medians": medians, "ratios": ratios, "fdatasync_ms": sync, "missed": missed, "rounds": results}


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, metavar="N",
                        help="threads of the worker's pool (the SDK's default: the number of cores + 4)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, for trying it out")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    versions = {name: importlib.metadata.version(name) for name in ("durabletask-sql", "durabletask", "grpcio", "psycopg")}
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}")
    print(versions)
    print(f"threads of the worker's pool: {options.threads or 'as many as the SDK takes by itself'}")
    with tempfile.TemporaryDirectory() as folder, server() as maintenance:
        sync = sync_milliseconds(Path(folder))
        figures = report(measure(options, Path(folder), maintenance), sync)
    if options.json:
        options.json.write_text(json.dumps({"versions": versions, **figures}, indent=2))
    return 1 if figures["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
