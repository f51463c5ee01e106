"""Several hosts in this process on one database: they join, leave, die, or lose the database for their leases."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from dispatch.bench import Bench, HandClock, Worker, finish, schedule
from durabletask_sql.dispatch import ownership
from durabletask_sql.errors import OutcomeUnknownError, UnavailableError
from durabletask_sql.host import Host
from durabletask_sql.model.checkpoints import ActivityCompletion, OutcomeKind
from durabletask_sql.protocol.framing import iter_events
from durabletask_sql.settings import Settings
from durabletask_sql.storage.committer import SqlCommitter
from durabletask_sql.storage.store import SqlStore
from tables import rows

T = TypeVar("T")
LEASE = 60.0  # longer than a machine is held up, and than `until` waits: what goes on has not waited for its end
CUT_LEASE = 10.0  # of those that a test cuts off, so that it runs out
BEAT = 1.0  # between heartbeats, however long the lease is, and so between looks at who came or went
PARTITIONS = 8
SECONDS = 30.0


class CuttableStore:
    """A store whose lease work finds no database while it is cut off."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.cut = False
        self.doubtful: str | None = None  # the operation whose next outcome nobody hears of

    def __getattr__(self, name):
        return getattr(self._store, name)

    def leases(self, hub):
        return _CuttableLeases(self, self._store.leases(hub))


class _CuttableLeases:
    def __init__(self, store, leases) -> None:
        self._store = store
        self._leases = leases

    def __getattr__(self, name):
        method = getattr(self._leases, name)

        async def call(*args):
            if self._store.cut:
                message = "a fault of the test"
                raise UnavailableError(message)
            found = await method(*args)
            if self._store.doubtful == name:
                self._store.doubtful = None
                message = "a fault of the test"
                raise OutcomeUnknownError(message)
            return found

        return call


class Member(Bench):
    """One of the hosts."""

    def __init__(self, host: Host, store: CuttableStore, clock: HandClock) -> None:
        super().__init__(host.hubs["default"], clock)
        self.host = host
        self.store = store
        self.dispatcher = self.runtime.dispatcher

    @property
    def host_id(self) -> int:
        return self.dispatcher._host_id

    @property
    def partitions(self) -> set[int]:
        """What it has in memory."""
        return set(self.dispatcher._memory.epochs)

    async def stop(self) -> None:
        """Stop as an operator has it."""
        await self.host.drain(SECONDS)
        await self.host.stop()

    async def die(self) -> None:
        """Stop without a word to the database."""
        await self.dispatcher.loops.stop()
        solo = list(self.dispatcher._owner._solo)
        for task in solo:
            task.cancel()
        await asyncio.gather(*solo, return_exceptions=True)
        await self.store.close()


class Cluster:
    """The hosts of a test on one database."""

    def __init__(self, url: str, lease: float, partitions: int) -> None:
        self.url = url
        self.partitions = partitions
        self.lease = lease
        self.members: list[Member] = []

    async def join(self, worker: Worker | None = None) -> Member:
        """Add a host, with a worker if there is one."""
        settings = Settings(database=self.url, upgrade=True, partitions=self.partitions, lease_seconds=self.lease)
        store = CuttableStore(await SqlStore.open(self.url, lease_seconds=self.lease, upgrade=True))
        clock = HandClock()
        host = await Host.on(store, settings, lambda: clock)
        member = Member(host, store, clock)
        if worker is not None:
            member.connect(worker)
            worker.bench = member
        await host.start()
        self.members.append(member)
        return member

    async def leave(self, member: Member) -> None:
        self.members.remove(member)
        await member.stop()

    async def kill(self, member: Member, left: float | None = None) -> None:
        """Have a host die, and so many seconds of its lease be left then, as if it had had a short one."""
        self.members.remove(member)
        await member.die()
        if left is not None:
            await self.members[0].store.leases(member.runtime.hub).heartbeat(member.host_id, left)

    def owners(self) -> dict[int, int]:
        return dict(rows(self.url, "SELECT partition, owner FROM partitions"))

    def balanced(self) -> bool:
        """Whether everything is owned, within one of each other, and everybody knows what is theirs."""
        counts = Counter(self.owners().values())
        held = [counts[member.host_id] for member in self.members]
        return (sum(held) == self.partitions and max(held) - min(held) <= 1
                and [len(member.partitions) for member in self.members] == held)

    async def until(self, condition: Callable[[], bool], seconds: float = SECONDS) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.02)


class Player(Worker):
    """A worker that answers at once: an orchestration runs `steps` activities, one after the other."""

    def __init__(self, steps: int = 5, **fields) -> None:
        super().__init__(**fields)
        self.steps = steps
        self.bench: Bench
        self.ran = 0
        self.tasks: set[asyncio.Task] = set()

    def _begin(self, work) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def offer_turn(self, item):
        kinds = [event.WhichOneof("eventType") for part in (*item.past, item.new_events) for event in iter_events(part)]
        done, asked = kinds.count("taskCompleted"), kinds.count("taskScheduled")
        actions = finish() if done == self.steps else schedule("step", first=done)[0] if asked == done else None
        self._begin(self.bench.answer(item, *([actions] if actions is not None else [])))

    def offer_activity(self, item):
        self.ran += 1
        self._begin(self.bench.result(item))


def on_hosts(url: str, test: Callable[[Cluster], Awaitable[T]], lease: float = LEASE,
             partitions: int = PARTITIONS) -> T:
    """Run a test's coroutine, and stop the hosts that it leaves."""
    async def run() -> T:
        cluster = Cluster(url, lease, partitions)
        try:
            return await test(cluster)
        finally:
            for member in list(cluster.members):
                await cluster.kill(member)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ownership, "_LONGEST_BEAT_SECONDS", BEAT)
        return asyncio.run(run())


def watch_commits(monkeypatch) -> dict[tuple[int, int], set[int]]:
    """Note which hosts commit turns under each (partition, epoch)."""
    seen: dict[tuple[int, int], set[int]] = {}
    commit_on = SqlCommitter.commit_on

    def watched(self, session, group):
        committed = commit_on(self, session, group)
        for item, outcome in zip(group.items, committed.outcomes, strict=True):
            if outcome.kind is OutcomeKind.COMMITTED and not isinstance(item, ActivityCompletion):
                partition = item.key.partition
                seen.setdefault((partition, group.epochs[partition]), set()).add(group.host_id)
        return committed

    monkeypatch.setattr(SqlCommitter, "commit_on", watched)
    return seen
