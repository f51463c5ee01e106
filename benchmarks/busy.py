"""Does a group commit keep its latency beside a busy thread in the same process?

    python benchmarks/busy.py [--rounds 3] [--groups 300] [--size 20] [--quick] [--json FILE]

Groups of turns and groups of activity results take turns, each committed as the owner loop commits it: from an event
loop, on the committer's thread. Beside it runs nothing, or a thread that computes without end in Python; with Python's
own switch interval, and with the one that `durabletask-sql serve` sets.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from conformance.world import World, open_world, room  # noqa: E402 - from the tests' folder
from durabletask_sql.cli.serve import SWITCH_INTERVAL_SECONDS  # noqa: E402 - after the path
from durabletask_sql.model.checkpoints import ActivityCompletion, OutcomeKind  # noqa: E402 - after the path
from durabletask_sql.model.instances import InstanceRow  # noqa: E402 - after the path
from durabletask_sql.ports.committer import Committed, Group  # noqa: E402 - after the path
from postgres import create_database, server  # noqa: E402 - from the tests' folder

_PYTHONS_OWN_SECONDS = 0.005


@dataclass(frozen=True)
class Surroundings:
    """What runs beside the committer."""

    title: str
    busy: bool
    switch_seconds: float


QUIET = Surroundings("quiet", busy=False, switch_seconds=SWITCH_INTERVAL_SECONDS)
CASES = (QUIET, Surroundings("busy, as served", busy=True, switch_seconds=SWITCH_INTERVAL_SECONDS),
         Surroundings("busy, Python's own interval", busy=True, switch_seconds=_PYTHONS_OWN_SECONDS))


@contextmanager
def beside(case: Surroundings) -> Iterator[None]:
    """Run a busy thread, or none, with a switch interval."""
    stopped, before = threading.Event(), sys.getswitchinterval()

    def compute() -> None:
        number = 0
        while not stopped.is_set():
            number = (number * 31 + 7) % 1_000_003

    thread = threading.Thread(target=compute)
    sys.setswitchinterval(case.switch_seconds)
    if case.busy:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        if case.busy:
            thread.join()
        sys.setswitchinterval(before)


class Chains:
    """So many instances that go on and on: a turn schedules an activity, its result makes the next turn."""

    def __init__(self, world: World, rows: list[InstanceRow]) -> None:
        """Begin with instances that were just created."""
        self._world = world
        self._rows = rows

    async def commit_turns(self) -> tuple[float, Committed]:
        """Commit a turn of every instance; return the seconds."""
        turns = [self._world.turn(row, activities=(self._world.activity(row),)) for row in self._rows]
        self._rows = [turn.row for turn in turns]
        return await self._timed(self._world.group(*turns, activity_room=room(len(turns))))

    async def commit_results(self, turns: Committed) -> float:
        """Commit the results of the activities; return the seconds."""
        results = [ActivityCompletion(task.key, task.seq, task.token, self._world.message(task.key.instance_id))
                   for task in turns.activities]
        seconds, _ = await self._timed(self._world.group(*results))
        return seconds

    async def _timed(self, group: Group) -> tuple[float, Committed]:
        began = time.perf_counter()
        committed = await self._world.committer.commit(group)
        seconds = time.perf_counter() - began
        assert all(outcome.kind is OutcomeKind.COMMITTED for outcome in committed.outcomes), committed.outcomes
        return seconds, committed


async def latencies(url: str, case: Surroundings, groups: int, size: int) -> list[float]:
    """Return what each group commit took on a fresh database, in seconds."""
    world = await open_world(url)
    try:
        chains = Chains(world, [await world.created(f"chain-{number}") for number in range(size)])
        times = []
        with beside(case):
            for _ in range(groups // 2):
                seconds, turns = await chains.commit_turns()
                times += [seconds, await chains.commit_results(turns)]
        return times[groups // 10:]  # plans and caches are warm by then
    finally:
        await world.store.close()


def measure(options: argparse.Namespace, folder: Path, maintenance: str) -> dict[str, dict[str, list[float]]]:
    """Run all rounds; return the milliseconds of each case on each database."""
    groups = options.groups // 10 if options.quick else options.groups
    found: dict[str, dict[str, list[float]]] = {
        kind: {case.title: [] for case in CASES} for kind in ("sqlite", "postgresql")}
    for number in range(options.rounds):
        for place, case in enumerate(CASES):
            urls = {"sqlite": f"sqlite:///{folder / f'{number}-{place}.db'}", "postgresql": create_database(maintenance)}
            for kind, url in urls.items():
                seconds = uvloop.run(latencies(url, case, groups, options.size))
                found[kind][case.title] += [one * 1e3 for one in seconds]
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    return found


def report(found: dict[str, dict[str, list[float]]], size: int) -> dict[str, dict[str, list[float]]]:
    """Print median and 99th percentile of each case; return them."""
    print(f"\n{f'one group commit of {size} items, in milliseconds':<52}{'p50':>10}{'p99':>10}")
    shown: dict[str, dict[str, list[float]]] = {}
    for kind, cases in found.items():
        shown[kind] = {}
        for title, times in cases.items():
            cuts = statistics.quantiles(times, n=100)
            shown[kind][title] = [cuts[49], cuts[98]]
            print(f"{kind + ', ' + title:<52}{cuts[49]:>10.2f}{cuts[98]:>10.2f}")
    return shown


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--groups", type=int, default=300, help="groups of each case in a round (default: 300)")
    parser.add_argument("--size", type=int, default=20, help="items of a group (default: 20)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the groups, for trying it out")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, server() as maintenance:
        shown = report(measure(options, Path(folder), maintenance), options.size)
    if options.json:
        options.json.write_text(json.dumps(shown, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
