"""The owner's committer: the only one that claims control-queue rows.

Its operations run one after the other, each reply being merged into memory before the next begins; the caller (one
loop per host) holds to that. All of them check the partition epochs that they are given, inside their transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from durabletask_sql.model.checkpoints import Item, Outcome, TurnCheckpoint
from durabletask_sql.model.entities import EntityRow
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.messages import ActivityRow, QueueRow, TimerRow
from durabletask_sql.ports.claims import ActivityClaim, ActivityRoom
from durabletask_sql.ports.parking import Park, Parked, ParkedCounts, ParkedPlace, ParkedRow


@dataclass(frozen=True, slots=True)
class Group:
    """Items to commit in one transaction.

    `epochs` holds, for each partition that this host owns, the epoch under which it believes so. Messages that go to
    an instance in `entering` are written as held by this host and come back in `Committed.entered`; start rows of
    new children and of continue-as-new, in partitions of ours, always are (unless `alone`); all others are written
    with held_epoch 0. After the inserts the ceilings of the instances in `looks` are read: whether somebody else wrote
    rows for them before. New timers in our partitions due before `timer_horizon` enter; new activities enter, claimed
    by `host_id` with `claim_token`, as far as `activity_room` goes. `alone` is the solo lane: it runs on a connection
    of its own beside the committer, so nothing enters.
    """

    items: tuple[Item, ...]
    epochs: Mapping[int, int]
    now: int
    host_id: int
    claim_token: int = 0
    activity_room: ActivityRoom = ActivityRoom()
    timer_horizon: int = 0
    entering: frozenset[InstanceKey] = frozenset()
    looks: tuple[InstanceKey, ...] = ()
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Committed:
    """What a group did. `outcomes` are parallel to its items; rows are those that are now in this host's memory.

    `children` are rows of new or replaced orchestrations, as committed, in partitions of ours whose start row is
    among `entered`: they need not be read. `ceilings` has one entry for each instance that was looked at: the lowest
    sequence that nobody holds, or None. `unheld` are instances that got rows which nobody holds (their owner should be
    woken). `lost_partitions` are no longer ours.
    """

    outcomes: tuple[Outcome, ...]
    entered: tuple[QueueRow, ...] = ()
    ceilings: Mapping[InstanceKey, int | None] = field(default_factory=dict)
    timers: tuple[TimerRow, ...] = ()
    activities: tuple[ActivityRow, ...] = ()
    unclaimed_activities: bool = False
    children: tuple[InstanceRow, ...] = ()
    unheld: frozenset[InstanceKey] = frozenset()
    lost_partitions: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Load:
    """What to bring into memory, in one transaction.

    `scan` asks, for each of its partitions, for up to so many un-held rows, oldest first, except of instances in
    `full`; the instances found are claimed: those in `warm` as they are, all others read afresh. `claims` are
    instances to claim that are in memory; `fresh` ones are also read afresh: row, history and the rows already held
    at our epoch. Timers due before `timer_horizon`, at most `timer_limit`, earliest first, are claimed, and
    the unclaimed activity tasks of the hub that `activities` ask for, with `claim_token`. A claim takes an instance's
    oldest rows up to its `share`, or to what is `left` of that where it has some, and to its part of the messages for
    which its partition is `free`.
    """

    epochs: Mapping[int, int]
    host_id: int
    claims: tuple[InstanceKey, ...] = ()
    fresh: tuple[InstanceKey, ...] = ()
    warm: frozenset[InstanceKey] = frozenset()
    scan: Mapping[int, int] = field(default_factory=dict)
    full: frozenset[InstanceKey] = frozenset()
    share: int = 1000
    left: Mapping[InstanceKey, int] = field(default_factory=dict)
    free: Mapping[int, int] = field(default_factory=dict)
    timer_horizon: int = 0
    timer_limit: int = 0
    activities: tuple[ActivityClaim, ...] = ()
    claim_token: int = 0


@dataclass(frozen=True, slots=True)
class FreshInstance:
    """An instance read afresh: its row (None: there is no such instance) and its history rows' bytes in order.

    `refs` are, by their place in `history`, the rows whose large texts are in payloads of their own: those have to be
    filled before they are read.
    """

    key: InstanceKey
    row: InstanceRow | None
    history: tuple[bytes, ...]
    refs: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class HollowHistory:
    """The history of an execution without its large texts, of which there are `text_bytes`."""

    key: InstanceKey
    execution_id: str
    parts: tuple[bytes, ...]
    refs: Mapping[int, bytes]
    text_bytes: int


@dataclass(frozen=True, slots=True)
class FreshEntity:
    """An entity read afresh: its row (None: it has neither state nor lock).

    Of its rows that are held at our epoch only the share came along: from `hidden` on they did not.
    """

    key: InstanceKey
    row: EntityRow | None
    hidden: int | None


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load brought. `claimed` includes, for fresh instances, the rows that were already held at our epoch.

    `scan_full` are partitions in which the scan met its limit, so that there may be more; likewise `timers_full`
    and `activities_full`.
    """

    claimed: tuple[QueueRow, ...] = ()
    ceilings: Mapping[InstanceKey, int | None] = field(default_factory=dict)
    fresh: tuple[FreshInstance | FreshEntity, ...] = ()
    timers: tuple[TimerRow, ...] = ()
    activities: tuple[ActivityRow, ...] = ()
    scan_full: frozenset[int] = frozenset()
    timers_full: bool = False
    activities_full: bool = False
    lost_partitions: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Pending:
    """Where something waits that nobody holds: partitions with un-held rows or timers, and unclaimed activities.

    `leases`: a partition is free for this host to take, or one of its own is asked for. `undone`: the database has
    crashed, and what this host has claimed and parked may not be so: the caller must do as after an unknown outcome.
    """

    queue: frozenset[int] = frozenset()
    timers: frozenset[int] = frozenset()
    activities: bool = False
    leases: bool = False
    undone: bool = False


class Committer(Protocol):
    """The owner's writes."""

    async def commit(self, group: Group) -> Committed:
        """Commit a group; a bad item leaves it, with its outcome saying why, and the others commit.

        Raises OutcomeUnknownError when a connection was lost inside the transaction: the caller must raise the epochs
        of its partitions and drop their memory. Raises UnavailableError when nothing was sent.
        """
        ...

    async def commit_alone(self, group: Group) -> Committed:
        """Commit a group of one item on a connection of its own (the solo lane), beside the committer."""
        ...

    async def load(self, load: Load) -> Loaded:
        """Claim and read. Raises as `commit` does."""
        ...

    async def pack(self, turn: TurnCheckpoint) -> TurnCheckpoint:
        """Return a turn with its texts packed as the store keeps them, so that its group does not wait for that."""
        ...

    async def fill(self, hollow: HollowHistory) -> tuple[bytes, ...] | None:
        """Return a history with its texts, which never change; None when they are gone, with their execution.

        Runs beside the other operations. Raises UnavailableError.
        """
        ...

    async def poll(self, host_id: int, timer_horizon: int) -> Pending:
        """Look, in one cheap statement without writing, whether anything waits that other processes wrote."""
        ...

    async def activity(self, partition: int, seq: int, token: int) -> ActivityRow | None:
        """Return the activity task with this sequence if it is still held under this claim, else None."""
        ...

    async def park(self, what: Park) -> Parked:
        """Park rows that cannot run. Raises as `commit` does."""
        ...

    async def parked(self, place: ParkedPlace, limit: int) -> Sequence[ParkedRow]:
        """Return the next parked rows from a place on, in order of sequence."""
        ...

    async def unpark(self, keys: Sequence[InstanceKey]) -> Parked:
        """Make the parked rows of some instances rows that nobody holds. Raises as `commit` does."""
        ...

    async def count_parked(self, limit: int) -> ParkedCounts:
        """Count what is parked, by name: of at most `limit` instances and entities."""
        ...

    async def holders(self) -> str:
        """Say, for an operator, which sessions may hold the rows that an item waits for. Raises UnavailableError."""
        ...

    async def give_back(self, host_id: int, tasks: Sequence[ActivityRow]) -> None:
        """Leave claimed activity tasks to others; a claim that does not hold any more is passed over."""
        ...

    async def count_unclaimed(self, limit: int) -> Sequence[tuple[str, str | None, int]]:
        """Return the names and versions of unclaimed activity tasks with how many there are, of the oldest `limit`."""
        ...

    async def release_claims(self, host_id: int, tokens: Sequence[int]) -> None:
        """Give back the activity tasks that a host claimed under these tokens (their commit's outcome was unknown)."""
        ...
