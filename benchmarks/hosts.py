"""What does adding or removing a host cost the instances? The latency of turns before, while and after partitions move.

    python benchmarks/hosts.py [--rate 100] [--seconds 10] [--database sqlite|postgresql] [--json FILE]

Events are raised at a steady rate, whatever becomes of them, at a server that stays; the latency of a turn is from
there to the worker that gets it. A third server joins two others, then one of the three is stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import uvloop

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from load import SERVICE, unary  # noqa: E402 - beside this file

from durabletask_sql.protocol import taskhub_pb2 as pb  # noqa: E402 - after the path
from postgres import create_database, server  # noqa: E402 - from the tests' folder
from server import ServerProcess  # noqa: E402
from tables import rows  # noqa: E402

_INSTANCES, _PARTITIONS, _SLOTS = 200, 12, 1_000
_SETTLED_SECONDS = 2.0  # a phase lasts so long beyond the move that it is about
_OWNERS = """SELECT count(*) FROM partitions p JOIN hosts h ON h.hub_id = p.hub_id AND h.host_id = p.owner
GROUP BY h.host_id ORDER BY 1"""


@dataclass(frozen=True)
class Figures:
    """Latencies in milliseconds of the turns of a phase; `moved` is how many seconds the partitions took."""

    phase: str
    turns: int
    p50: float
    p99: float
    worst: float
    moved: float | None = None


@dataclass
class Pulse:
    """Raises events at a steady rate and notes how long each took to reach a worker."""

    channel: grpc.aio.Channel
    latencies: list[float] = field(default_factory=list)
    raised: int = 0

    async def start(self) -> None:
        """Start the instances."""
        start = unary(self.channel, "StartInstance")
        requests = (pb.CreateInstanceRequest(instanceId=f"pulse-{number}", name="pulse") for number in range(_INSTANCES))
        await asyncio.gather(*(start(request.SerializeToString()) for request in requests))

    async def run(self, rate: float) -> None:
        """Raise until cancelled."""
        raise_event, began = unary(self.channel, "RaiseEvent"), time.perf_counter()
        async with asyncio.TaskGroup() as calls:
            while True:
                await asyncio.sleep(max(0.0, began + self.raised / rate - time.perf_counter()))
                event = pb.RaiseEventRequest(instanceId=f"pulse-{self.raised % _INSTANCES}", name="beat")
                event.input.value = repr(time.perf_counter())
                self.raised += 1
                calls.create_task(_answered(raise_event(event.SerializeToString())))

    async def work(self, channel: grpc.aio.Channel) -> None:
        """Take turns from one server, as long as it is there, and answer them at once."""
        complete = unary(channel, "CompleteOrchestratorTask")
        limits = pb.GetWorkItemsRequest(maxConcurrentOrchestrationWorkItems=_SLOTS)
        items = channel.unary_stream(f"{SERVICE}GetWorkItems", bytes, bytes)
        with suppress(grpc.aio.AioRpcError):
            async with asyncio.TaskGroup() as calls:
                async for data in items(limits.SerializeToString()):
                    item = pb.WorkItem.FromString(data)
                    if item.HasField("orchestratorRequest"):
                        self._note(item.orchestratorRequest)
                        answer = pb.OrchestratorResponse(instanceId=item.orchestratorRequest.instanceId,
                                                         completionToken=item.completionToken)
                        calls.create_task(_answered(complete(answer.SerializeToString())))

    def _note(self, request: pb.OrchestratorRequest) -> None:
        now = time.perf_counter()
        self.latencies += [now - float(event.eventRaised.input.value) for event in request.newEvents
                           if event.HasField("eventRaised")]

    def take(self, phase: str, moved: float | None = None) -> Figures:
        """Return the figures since the last call."""
        found, self.latencies = sorted(self.latencies), []
        return Figures(phase, len(found), 1e3 * statistics.median(found), 1e3 * found[int(0.99 * len(found))],
                       1e3 * found[-1], moved)


async def _answered(call: grpc.aio.UnaryUnaryCall[bytes, bytes]) -> None:
    """Wait for an answer. A server that stops takes no more: what its worker had runs again elsewhere."""
    with suppress(grpc.aio.AioRpcError):
        await call


@asynccontextmanager
async def serving(pulse: Pulse | None, url: str, folder: Path, name: str) -> AsyncIterator[tuple[ServerProcess, Pulse]]:
    """Run a server with a worker; the first one also gets the load."""
    process = ServerProcess(url, folder / f"{name}.log", "--partitions", str(_PARTITIONS))
    await asyncio.to_thread(process.start)
    try:
        async with grpc.aio.insecure_channel(process.address) as channel:
            pulse = pulse or Pulse(channel)
            working = asyncio.create_task(pulse.work(channel))
            yield process, pulse
            working.cancel()
    finally:
        with suppress(ProcessLookupError):
            await asyncio.to_thread(process.kill)


async def shared(url: str, hosts: int) -> float:
    """Wait until so many hosts have the same number of partitions each; return the seconds that it took."""
    began = time.perf_counter()
    async with asyncio.timeout(30):
        while [row[0] for row in rows(url, _OWNERS)] != [_PARTITIONS // hosts] * hosts:
            await asyncio.sleep(0.05)
    return time.perf_counter() - began


async def measure(url: str, folder: Path, rate: float, seconds: float) -> list[Figures]:
    """Add a host and remove one, under load."""
    found = []
    async with AsyncExitStack() as stack:
        _, pulse = await stack.enter_async_context(serving(None, url, folder, "first"))
        second, _ = await stack.enter_async_context(serving(pulse, url, folder, "second"))
        await shared(url, 2)
        await pulse.start()
        beating = asyncio.create_task(pulse.run(rate))
        await asyncio.sleep(1.0)
        pulse.take("warm-up")
        await asyncio.sleep(seconds)
        found.append(pulse.take("two hosts"))
        await stack.enter_async_context(serving(pulse, url, folder, "third"))
        moved = await shared(url, 3)
        await asyncio.sleep(_SETTLED_SECONDS)
        found.append(pulse.take("a third joins", moved))
        await asyncio.sleep(seconds)
        found.append(pulse.take("three hosts"))
        began = time.perf_counter()
        stopping = asyncio.create_task(asyncio.to_thread(second.stop))
        await shared(url, 2)
        moved = time.perf_counter() - began
        await stopping
        await asyncio.sleep(_SETTLED_SECONDS)
        found.append(pulse.take("one is stopped", moved))
        await asyncio.sleep(seconds)
        found.append(pulse.take("two hosts again"))
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        lost = pulse.raised - 1 - sum(figures.turns for figures in found)
        print(f"  {pulse.raised} events raised, {lost} of them before or after the phases", flush=True)
    return found


@contextmanager
def databases(kind: str, folder: Path) -> Iterator[str]:
    """A fresh database."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'hub.db'}"
    else:
        with server() as maintenance:
            yield create_database(maintenance)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=100.0, help="events a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the quiet phases")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), help="only this one")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    every = {}
    for kind in (options.database,) if options.database else ("sqlite", "postgresql"):
        with tempfile.TemporaryDirectory() as folder, databases(kind, Path(folder)) as url:
            print(kind, flush=True)
            every[kind] = uvloop.run(measure(url, Path(folder), options.rate, options.seconds))
        for one in every[kind]:
            moved = f", partitions moved in {one.moved:.1f} s" if one.moved is not None else ""
            print(f"  {one.phase:16} {one.turns:6} turns  p50 {one.p50:7.1f} ms  p99 {one.p99:7.1f} ms  "
                  f"worst {one.worst:7.1f} ms{moved}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({kind: [asdict(one) for one in found] for kind, found in every.items()}))


if __name__ == "__main__":
    main()
