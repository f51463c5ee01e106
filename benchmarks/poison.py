"""What does poison cost healthy work? Items with and without 1 % of answers that cannot be carried out.

    python benchmarks/poison.py [--items 20000] [--pairs 5] [--database sqlite|postgresql] [--quick] [--json FILE]

An item is an orchestration of an activity, or of a call of an entity, answered from prepared bytes. Runs with poison
(`poisoned.KINDS`, in random places) and without it alternate, each on a fresh database. After a run with poison
everything that is poison must have been set aside, and nothing else; then the worker is mended, all is put back with
`durabletask-sql quarantine redrive --all`, and has to complete.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc.aio
import uvloop

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent / "tests")]

from alone import LoadProcess  # noqa: E402 - beside this file
from load import CALL, SEQUENCE, unary  # noqa: E402
from measures import cpu_seconds  # noqa: E402
from poisoned import KINDS, MEND, POISON  # noqa: E402

from durabletask_sql.protocol import taskhub_pb2 as pb  # noqa: E402 - after the path
from postgres import create_database, server  # noqa: E402 - from the tests' folder
from server import ServerProcess  # noqa: E402
from tables import rows  # noqa: E402

SERVED = (sys.executable, "-m", "durabletask_sql")
SHARE = 0.01
_IN_FLIGHT = 500
_SECONDS = 120.0  # for what comes after the healthy items: five attempts with growing delays take 15
_LOOK_SECONDS = 0.2
_LEAST_RATIO = 0.95


@dataclass(frozen=True)
class Item:
    """An orchestration to start."""

    instance_id: str
    name: str
    text: str

    @property
    def aside(self) -> str:
        """The instance or entity that is set aside if this is poison."""
        return f"@{self.text}@{self.instance_id}" if KINDS[self.text].entity else self.instance_id


@dataclass(frozen=True)
class Figures:
    """What healthy items did: how many a second, and microseconds of the server's processor time for each."""

    items_a_second: float
    server_cpu: float


def healthy(count: int) -> list[Item]:
    """Return healthy items, half of them of each shape."""
    return [Item(f"healthy-{number}", *((SEQUENCE, "1") if number % 2 else (CALL, "1"))) for number in range(count)]


def poison(count: int) -> list[Item]:
    """Return so many items of poison, and at least one of each kind."""
    kinds = list(KINDS)
    return [Item(f"poison-{number}", POISON, kinds[number % len(kinds)]) for number in range(max(count, len(kinds)))]


def mixed(healthy_items: Sequence[Item], poison_items: Sequence[Item]) -> list[Item]:
    """Return all items, poison in random places, the same ones each time."""
    chance, found = random.Random(1), list(healthy_items)
    for item in poison_items:
        found.insert(chance.randrange(len(found) + 1), item)
    return found


class Client:
    """Starts items, so many of them in flight at once, and waits for those that are to complete."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Use this channel."""
        self._start = unary(channel, "StartInstance")
        self._wait = unary(channel, "WaitForInstanceCompletion")
        self._room = asyncio.Semaphore(_IN_FLIGHT)

    async def run(self, items: Sequence[Item]) -> float:
        """Run items; return the seconds from the first start to the end of the last healthy one."""
        began = time.perf_counter()
        async with asyncio.TaskGroup() as running:
            for item in items:
                await self._room.acquire()
                running.create_task(self._run_one(item))
        return time.perf_counter() - began

    async def _run_one(self, item: Item) -> None:
        try:
            request = pb.CreateInstanceRequest(instanceId=item.instance_id, name=item.name)
            request.input.value = item.text
            await self._start(request.SerializeToString())
            if item.name != POISON:
                await self.complete(item)
        finally:
            self._room.release()

    async def complete(self, item: Item) -> None:
        """Wait until an item has completed."""
        asked = pb.GetInstanceRequest(instanceId=item.instance_id).SerializeToString()
        state = pb.GetInstanceResponse.FromString(await self._wait(asked, timeout=_SECONDS)).orchestrationState
        assert state.orchestrationStatus == pb.ORCHESTRATION_STATUS_COMPLETED, state


@dataclass(frozen=True)
class Bench:
    """A server on a fresh database, and a worker that may be mended."""

    url: str
    server: ServerProcess
    worker: LoadProcess

    async def measure(self, items: Sequence[Item]) -> Figures:
        """Run items and return the figures of the healthy ones."""
        async with grpc.aio.insecure_channel(self.server.address) as channel:
            before = cpu_seconds([self.server.pid])
            seconds = await Client(channel).run(items)
            count = sum(item.name != POISON for item in items)
            return Figures(count / seconds, (cpu_seconds([self.server.pid]) - before) / count * 1e6)

    async def check(self, poison_items: Sequence[Item]) -> None:
        """See all poison set aside and nothing else, mend the worker, put everything back and see it complete."""
        wanted = {item.aside: KINDS[item.text].cause for item in poison_items}
        async with asyncio.timeout(_SECONDS):
            while len(found := self._aside()) < len(wanted):
                await asyncio.sleep(_LOOK_SECONDS)
        assert found.keys() == wanted.keys(), found.keys() ^ wanted.keys()
        assert all(cause in found[key] for key, cause in wanted.items()), found
        self.worker.ask(MEND)
        command = [*SERVED, "quarantine", "redrive", "--all", "--database", self.url]
        await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
        async with grpc.aio.insecure_channel(self.server.address) as channel:
            client = Client(channel)
            await asyncio.gather(*(client.complete(item) for item in poison_items))
        assert not self._aside()

    def _aside(self) -> dict[str, str]:
        found = rows(self.url, "SELECT instance_id, cause FROM quarantine")
        return {instance_id: bytes(cause).decode() for instance_id, cause in found}


@contextmanager
def bench(url: str, folder: Path, command: Sequence[str] = SERVED) -> Iterator[Bench]:
    """Start a server, by this command, and a worker."""
    process = ServerProcess(url, folder / "server.log", command=command).start()
    worker = LoadProcess("worker", process.address, "poisoned.py")
    try:
        worker.ask("")
        yield Bench(url, process, worker)
    finally:
        worker.stop()
        process.stop()


def run(url: str, folder: Path, items: int, *, with_poison: bool) -> Figures:
    """Run so many items, the share of poison among them or none; return the figures of the healthy ones."""
    bad = poison(int(items * SHARE))
    good = healthy(items - len(bad))
    with bench(url, folder) as ready:
        figures = uvloop.run(ready.measure(mixed(good, bad if with_poison else ())))
        if with_poison:
            uvloop.run(ready.check(bad))
    return figures


def measure(options: argparse.Namespace, folder: Path, maintenance: str) -> dict[str, list[tuple[Figures, Figures]]]:
    """Run all pairs; return (with poison, without it) of each database."""
    kinds = [options.database] if options.database else ["sqlite", "postgresql"]
    items = options.items // 20 if options.quick else options.items
    found: dict[str, list[tuple[Figures, Figures]]] = {kind: [] for kind in kinds}
    for number in range(1 if options.quick else options.pairs):
        for kind in kinds:
            pair = {}
            for with_poison in (True, False) if number % 2 else (False, True):
                place = folder / f"{kind}-{number}-{with_poison}"
                place.mkdir()
                url = f"sqlite:///{place / 'hub.db'}" if kind == "sqlite" else create_database(maintenance)
                pair[with_poison] = run(url, place, items, with_poison=with_poison)
            found[kind].append((pair[True], pair[False]))
            with_, without = pair[True], pair[False]
            print(f"pair {number + 1}, {kind}, with poison and without: {with_.items_a_second:.0f} and "
                  f"{without.items_a_second:.0f} items/s, {with_.server_cpu:.0f} and {without.server_cpu:.0f} µs",
                  file=sys.stderr, flush=True)
    return found


def report(found: dict[str, list[tuple[Figures, Figures]]]) -> bool:
    """Print the medians and the spread of the ratios; return whether the bar is met."""
    met = True
    for kind, pairs in found.items():
        print(kind)
        for title, name in (("healthy items/s", "items_a_second"), ("server's processor time an item, µs", "server_cpu")):
            with_, without = ([getattr(one, name) for one in side] for side in zip(*pairs, strict=True))
            ratios = sorted(one / other for one, other in zip(with_, without, strict=True))
            print(f"  {title:<38} with poison {statistics.median(with_):8.0f}   without {statistics.median(without):8.0f}"
                  f"   ratio {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")
            met &= name != "items_a_second" or statistics.median(ratios) >= _LEAST_RATIO
    print(f"all poison was set aside, nothing else was, and all completed when put back; at least {_LEAST_RATIO} of the "
          f"healthy throughput: {'met' if met else 'missed'}")
    return met


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000, help="items of a run (default: 20,000)")
    parser.add_argument("--pairs", type=int, default=5, help="runs with and without poison (default: 5 of each)")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), help="only this one (default: both)")
    parser.add_argument("--quick", action="store_true", help="one pair of a twentieth of the items, for trying it out")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, server() as maintenance:
        found = measure(options, Path(folder), maintenance)
    if options.json:
        options.json.write_text(json.dumps({kind: [[asdict(one) for one in pair] for pair in pairs]
                                            for kind, pairs in found.items()}, indent=2))
    return 0 if report(found) else 1


if __name__ == "__main__":
    sys.exit(main())
