"""A host in this process on a database, and executors that show what they were offered and answer when told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from durabletask_sql.clock import MICROSECONDS, SystemClock
from durabletask_sql.host import Host, HubRuntime
from durabletask_sql.model.filters import WorkFilters, name_filter
from durabletask_sql.partitions.limits import MemoryLimits
from durabletask_sql.ports.work import Profile
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import iter_events
from durabletask_sql.service.abstraction import NewInstance
from durabletask_sql.settings import Settings
from durabletask_sql.storage.store import SqlStore

T = TypeVar("T")
SECONDS = 10.0


def only(orchestrations=(), activities=(), entities=()):
    """A profile that takes these names alone: each a name, or a name with versions."""
    def found(names):
        return name_filter((name, ()) if isinstance(name, str) else name for name in names)
    return Profile(WorkFilters(found(orchestrations), found(activities), found(entities)))


DONE = pb.OperationResult(success=pb.OperationResultSuccess())


class Worker:
    """An executor. `turn` and `activity` wait for the next item."""

    def __init__(self, profile: Profile = Profile(), turn_slots: int = 10, activity_slots: int = 10,
                 name: str = "worker", entity_slots: int = 10) -> None:
        self.name = name
        self.profile = profile
        self.turn_slots = turn_slots
        self.activity_slots = activity_slots
        self.entity_slots = entity_slots
        self.turns: asyncio.Queue = asyncio.Queue()
        self.activities: asyncio.Queue = asyncio.Queue()
        self.batches: asyncio.Queue = asyncio.Queue()

    def offer_turn(self, item):
        self.turns.put_nowait(item)

    def offer_activity(self, item):
        self.activities.put_nowait(item)

    def offer_entity(self, item):
        self.batches.put_nowait(item)

    async def turn(self):
        return await asyncio.wait_for(self.turns.get(), SECONDS)

    async def activity(self):
        return await asyncio.wait_for(self.activities.get(), SECONDS)

    async def batch(self):
        return await asyncio.wait_for(self.batches.get(), SECONDS)


class HandClock(SystemClock):
    """The system's clock, whose monotonic time a test moves on, and which may be `off` by so many seconds."""

    def __init__(self, off: float = 0.0) -> None:
        super().__init__()
        self.moved = 0.0
        self._stays = False
        self.move(int(off * MICROSECONDS))

    def ahead(self, seconds: float) -> None:
        """Go ahead of the database's time by so many seconds, and stay there: no heartbeat brings it back from now on."""
        super().move(int(seconds * MICROSECONDS))
        self._stays = True

    def move(self, by: int) -> None:
        if not self._stays:
            super().move(by)

    def monotonic(self) -> float:
        return super().monotonic() + self.moved


class Bench:
    """The host's default hub. Its upkeep, which looks every few seconds by itself, also looks when told."""

    def __init__(self, runtime: HubRuntime, clock: HandClock) -> None:
        self.runtime = runtime
        self.clock = clock
        self.upkeep = runtime.dispatcher.upkeep
        self.board = runtime.board
        self.service = runtime.service
        self.entities = runtime.entities

    def connect(self, worker: Worker) -> Worker:
        self.board.connect(worker)
        return worker

    def ahead(self, seconds: float) -> None:
        """Let it be so much later than it is, for good; the timers' loop hears of it as with a heartbeat."""
        self.clock.ahead(seconds)
        self.runtime.dispatcher._timers_moved.set()

    async def start(self, name, instance_id, **fields):
        return await self.service.create(NewInstance(name, instance_id, **fields))

    async def answer(self, item, *actions, token=None):
        """Commit a turn with these actions."""
        await self.board.complete_turn(pb.OrchestratorResponse(
            instanceId=item.key.instance_id, completionToken=item.token if token is None else token, actions=actions))

    async def result(self, item, text="done", token=None):
        """Commit an activity's result."""
        await self.board.complete_activity(pb.ActivityResponse(
            instanceId=item.row.key.instance_id, taskId=item.row.task_id, result={"value": text},
            completionToken=item.token if token is None else token))

    async def ran(self, item, *results, state=None, token=None, **parts):
        """Commit a batch: a result for each operation unless they are given, and the state."""
        found = pb.EntityBatchResult(
            results=results or [DONE for _ in iter_events(item.operations)],
            completionToken=item.token if token is None else token, **parts)
        if state is not None:
            found.entityState.value = state
        await self.board.complete_entity(found)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the loops have come to something that cannot be waited for."""
        async with asyncio.timeout(SECONDS):
            while not condition():
                await asyncio.sleep(0.01)

    async def until_true(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Likewise for what has to be asked for."""
        async with asyncio.timeout(SECONDS):
            while not await condition():
                await asyncio.sleep(0.01)

    async def status(self, instance_id):
        state = await self.service.get(instance_id, payloads=False)
        return state.row.status.name


@contextmanager
def connecting_while_it_parks(bench: Bench) -> Iterator[list[Worker]]:
    """Connect a worker in the moment in which the first parking is committed and not yet followed; yield where it is."""
    committer = bench.runtime.dispatcher._committer
    park, workers = committer.park, []

    async def parking(what):
        done = await park(what)
        if not workers:
            workers.append(bench.connect(Worker()))
        return done

    committer.park = parking
    try:
        yield workers
    finally:
        del committer.park


def schedule(*names, first=0, version=None, text=None):
    """Actions that schedule activities."""
    return [pb.OrchestratorAction(id=number, scheduleTask=pb.ScheduleTaskAction(
        name=name, version=None if version is None else {"value": version},
        input=None if text is None else {"value": text})) for number, name in enumerate(names, first)]


def finish(number=99):
    """The action that ends an orchestration."""
    return pb.OrchestratorAction(id=number, completeOrchestration=pb.CompleteOrchestrationAction(
        orchestrationStatus=pb.ORCHESTRATION_STATUS_COMPLETED))


def kinds(framed):
    """The kinds of framed events."""
    return [event.WhichOneof("eventType") for event in iter_events(framed)]


def on_bench(url: str, test: Callable[[Bench], Awaitable[T]], memory: MemoryLimits | None = None, *,
             partitions: int = 1, lease_seconds: float = 12.0, off: float = 0.0) -> T:
    """Run a test's coroutine beside a running host, whose clock is `off` by so many seconds when it starts."""
    async def run() -> T:
        settings = replace(Settings(database=url, upgrade=True), partitions=partitions, lease_seconds=lease_seconds)
        store = await SqlStore.open(url, lease_seconds=settings.lease_seconds, upgrade=True)
        clock = HandClock(off)
        host = await Host.on(store, settings, lambda: clock, memory)
        await host.start()
        try:
            return await test(Bench(host.hubs["default"], clock))
        finally:
            await host.stop()

    return asyncio.run(run())
