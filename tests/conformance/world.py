"""A store with one hub that a test owns, and short ways to make instances, turns and groups."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sqlalchemy import select

from durabletask_sql.host import identify
from durabletask_sql.ids import new_execution_id, partition_of
from durabletask_sql.model.checkpoints import HistoryAppend, Item, NewChild, TurnCheckpoint
from durabletask_sql.model.creation import CreationPolicy
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.messages import MessageKind, NewActivity, NewMessage, QueueRow
from durabletask_sql.model.status import Status
from durabletask_sql.partitions.liveness import Liveness, Verdict
from durabletask_sql.ports.claims import ActivityClaim, ActivityRoom
from durabletask_sql.ports.committer import Committed, Group, Load, Loaded
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.instances import Created, Creation
from durabletask_sql.ports.leases import HostIdentity, OwnedPartition, View
from durabletask_sql.storage.codec import encode_instance
from durabletask_sql.storage.committer import SqlCommitter
from durabletask_sql.storage.entities import SqlEntities
from durabletask_sql.storage.instances import SqlInstances
from durabletask_sql.storage.leases import SqlLeases
from durabletask_sql.storage.session import Session
from durabletask_sql.storage.statements import INSERT_INSTANCES
from durabletask_sql.storage.store import SqlStore
from durabletask_sql.storage.tables import metadata
from durabletask_sql.storage.transactions import transact

T = TypeVar("T")
NOW = 1_000_000


def judged(host: HostIdentity, view: View) -> Verdict:
    """Who lives for a host that looks for the first time."""
    return Liveness().judge(host.host_id, view, 0.0, 0.0)


def room(count: int, name: str = "act") -> ActivityRoom:
    """Room for so many new activities of a name."""
    return ActivityRoom({(name, None): 0}, (count,))


def claim(count: int, name: str | None = None, version: str | None = None, size: int = 1_000) -> tuple[ActivityClaim, ...]:
    """A claim of so many unclaimed activities."""
    return (ActivityClaim(count, size, name, version),)


@dataclass
class World:
    """A hub, its ports, and the epochs under which this test owns it."""

    url: str
    store: SqlStore
    hub: TaskHub
    host: HostIdentity
    committer: SqlCommitter
    instances: SqlInstances
    leases: SqlLeases
    entities: SqlEntities
    epochs: dict[int, int] = field(default_factory=dict)

    async def acquire(self) -> dict[int, int]:
        """Take what is free; the epochs of what the host owns now."""
        return {partition: owned.epoch for partition, owned in (await self.take(self.host)).items()}

    async def take(self, host: HostIdentity) -> dict[int, OwnedPartition]:
        """Have a host take whatever is free or owned by the dead, and bury those."""
        view = await self.leases.look(host)
        found = judged(host, view)
        wanted = [lease for lease in view.leases if lease.owner not in found.live]
        return dict(await self.leases.acquire(host, wanted, found.dead))

    def key(self, instance_id: str) -> InstanceKey:
        return InstanceKey(partition_of(instance_id, self.hub.partition_count), instance_id)

    def row(self, instance_id: str, **changes: Any) -> InstanceRow:
        row = InstanceRow(*self.key(instance_id), new_execution_id(), 0, 1, "flow", None, Status.PENDING, NOW, NOW)
        return replace(row, **changes)

    async def create(self, instance_id: str, policy: CreationPolicy = CreationPolicy(), **changes: Any) -> Created:
        row = self.row(instance_id, **changes)
        start = NewMessage(row.key, row.execution_id, MessageKind.START, b"\x1a\x00")
        return await self.instances.create(Creation(row, "in", start, policy))

    async def read(self, instance_id: str) -> InstanceRow:
        state = await self.instances.get(self.key(instance_id), payloads=False)
        assert state is not None
        return state.row

    async def created(self, instance_id: str) -> InstanceRow:
        await self.create(instance_id)
        return await self.read(instance_id)

    def message(self, instance_id: str, text: bytes = b"\x1a\x00") -> NewMessage:
        return NewMessage(self.key(instance_id), None, MessageKind.EVENT, text)

    def turn(self, row: InstanceRow, **parts: Any) -> TurnCheckpoint:
        """A turn that adds one event to the history and changes nothing else."""
        after = replace(row, row_version=row.row_version + 1, status=Status.RUNNING, history_count=row.history_count + 1)
        history = HistoryAppend(row.execution_id, row.history_count, 1, b"\x1a\x00")
        return replace(TurnCheckpoint(row.row_version, after, history=history), **parts)

    def child(self, parent: InstanceRow, instance_id: str) -> NewChild:
        row = self.row(instance_id)
        return NewChild(row, "in", NewMessage(row.key, row.execution_id, MessageKind.START, b"\x1a\x00"),
                        NewMessage(parent.key, parent.execution_id, MessageKind.EVENT, b"\x1a\x02\x08\x07"))

    def activity(self, row: InstanceRow, task_id: int = 1, name: str = "act") -> NewActivity:
        return NewActivity(row.key, row.execution_id, task_id, name, None, b"event")

    def group(self, *items: Item, **parts: Any) -> Group:
        return replace(Group(tuple(items), dict(self.epochs), NOW, self.host.host_id, 77, room(100), 10 * NOW), **parts)

    async def commit(self, *items: Item, **parts: Any) -> Committed:
        return await self.committer.commit(self.group(*items, **parts))

    async def load(self, **parts: Any) -> Loaded:
        return await self.committer.load(replace(Load(dict(self.epochs), self.host.host_id), **parts))

    async def queue(self, instance_id: str) -> tuple[QueueRow, ...]:
        """Claim everything that waits for an instance, and return it."""
        return (await self.load(fresh=(self.key(instance_id),))).claimed


    async def end_all(self, instance_ids: Sequence[str]) -> None:
        """End many instances in one group."""
        rows = [await self.read(instance_id) for instance_id in instance_ids]
        ends = [replace(row, row_version=row.row_version + 1, status=Status.COMPLETED, completed_at=NOW) for row in rows]
        await self.commit(*(replace(self.turn(row, ended=True), row=end, history=None)
                            for row, end in zip(rows, ends, strict=True)))

    async def insert(self, rows: Sequence[InstanceRow]) -> None:
        """Write instance rows as they are, with nothing else."""
        def work(session: Session) -> None:
            session.send(INSERT_INSTANCES, [encode_instance(row) for row in rows], hub=self.hub.hub_id)

        await transact(self.store._database, work)

    async def names_in(self, table: str) -> set[str]:
        """The instances of this hub that have rows in a table."""
        found = metadata.tables[table]
        query = select(found.c.instance_id).where(found.c.hub_id == self.hub.hub_id)
        rows = await self.store._database.readers.run(lambda session: session.execute(query).rows)
        return {row[0] for row in rows}


async def open_world(url: str, hub: str = "default") -> World:
    store = await SqlStore.open(url, lease_seconds=12, upgrade=True)
    found = await store.open_hub(hub, None)
    world = World(url, store, found, identify(), store.committer(found), store.instances(found), store.leases(found),
                  store.entities(found))
    await world.leases.register(world.host, 12)
    world.epochs = await world.acquire()
    return world


def in_world(url: str, test: Callable[[World], Awaitable[T]]) -> T:
    """Run a test's coroutine in a fresh world."""
    async def run() -> T:
        world = await open_world(url)
        try:
            return await test(world)
        finally:
            await world.store.close()

    return asyncio.run(run())
