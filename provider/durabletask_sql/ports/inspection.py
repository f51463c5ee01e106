"""What an examination of a hub reads, page by page, and the few things that it may mend.

Each read is one short transaction that sees a single state of the hub, so that a hub which moves looks as consistent as
one at rest. No page is larger than its limits, an instance that alone is larger aside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from durabletask_sql.model.belongings import QUEUES, Belonging, Owner
from durabletask_sql.model.entities import EntityRow, LockOwner
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.protocol.needs import Need


class HistoryPart(NamedTuple):
    """A row of an execution's history, as it is stored."""

    first_sequence: int
    event_count: int
    events: bytes
    refs: bytes | None


class Waiting(NamedTuple):
    """A message or a timer that waits for an execution: its kind, and what its event answers."""

    kind: int
    answers: Need | None


@dataclass(frozen=True, slots=True)
class Examined:
    """An instance and what belongs to its current execution. Queues are read of instances that have not ended."""

    row: InstanceRow
    history: tuple[HistoryPart, ...] = ()
    payloads: Mapping[int, int] = field(default_factory=dict)  # bytes of each, by payload id
    tasks: Sequence[int] = ()  # the task ids of its activities
    timers: Sequence[Waiting] = ()
    messages: Sequence[Waiting] = ()  # those that name the execution
    has_events: bool = False  # messages that name none
    children: Sequence[int] = ()  # the task ids for which a live sub-orchestration works


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Instances with what they have to do with entities, from one transaction.

    `sent` are pairs of an entity and an execution that has a message in its queue. `set_aside` are ids of instances
    and entities that have something in quarantine.
    """

    instances: tuple[Examined, ...]
    locks: Mapping[str, LockOwner | None]
    sent: frozenset[tuple[str, str]]
    set_aside: frozenset[str]


@dataclass(frozen=True, slots=True)
class Lock:
    """An entity's row, that of its lock's holder if it is there, and whether a message that may free it (AHEAD) waits."""

    entity: EntityRow
    holder: InstanceRow | None
    has_release: bool


@dataclass(frozen=True, slots=True)
class Belongings:
    """A page of belongings, those of their instances that are there, and where the next page begins (None: nowhere)."""

    rows: tuple[Belonging, ...]
    owners: Mapping[InstanceKey, Owner]
    next: tuple[object, ...] | None


class HostSeen(NamedTuple):
    """A host's row. `lease_seconds` is what it asks for, `left_seconds` what is left of it (below 0: it ran out)."""

    host_id: int
    name: str
    lease_seconds: float
    left_seconds: float


class PartitionSeen(NamedTuple):
    """A partition's row."""

    partition: int
    owner: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who serves a hub: its partitions, its hosts, the hosts that claims on activities name, and rows held too high.

    `held` has, by table and partition, how many rows are held under an epoch above the partition's.
    """

    partitions: tuple[PartitionSeen, ...]
    hosts: tuple[HostSeen, ...]
    claims: Mapping[int, int]  # tasks by host
    held: Mapping[tuple[str, int], int]


class Setting(NamedTuple):
    """A setting or a figure of the database, as it names it."""

    name: str
    value: str


TABLES = (*QUEUES, "history", "payloads")


class Inspection(Protocol):
    """Reads of one hub for its examination, and its safe repairs."""

    async def keys(self, partition: int, after: str) -> Sequence[tuple[InstanceKey, int]]:
        """Return the next instances of a partition in order of id, each with the bytes of its history."""
        ...

    async def snapshot(self, keys: Sequence[InstanceKey], entity_ids: Sequence[str]) -> Snapshot:
        """Read these instances, those that are gone left out, and their relations to these entities."""
        ...

    async def locks(self, partition: int, after: str) -> Sequence[Lock]:
        """Return the next entities of a partition in order of id."""
        ...

    async def belongings(self, table: str, after: tuple[object, ...] | None) -> Belongings:
        """Return the next rows of one of TABLES."""
        ...

    async def ownership(self) -> Ownership:
        """Read who serves the hub."""
        ...

    async def release_lock(self, entity_id: str) -> int:
        """Queue a release for an entity's lock, if its holder still does not live; return how many."""
        ...

    async def delete(self, belonging: Belonging) -> int:
        """Delete rows that belong to nobody, having looked again with their instance locked; return how many went."""
        ...

    async def release_claims(self, host_id: int) -> int:
        """Give back the activity tasks that a host claimed, if it still has no row; return how many."""
        ...

    async def lower_held(self, table: str, partition: int) -> int:
        """Have nobody hold what is held under an epoch above the partition's; return how many rows."""
        ...


class Inspector(Protocol):
    """A database as an examination sees it."""

    async def hubs(self) -> Sequence[TaskHub]:
        """Return all task hubs, in order of name."""
        ...

    async def settings(self) -> Sequence[Setting]:
        """Return the settings that the promises rest on, and what an integrity check says."""
        ...

    def inspection(self, hub: TaskHub) -> Inspection:
        """Return the reads of one hub."""
        ...
