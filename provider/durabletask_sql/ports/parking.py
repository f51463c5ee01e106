"""Parking: rows that cannot run leave the owner's memory and stay in the database until somebody takes them.

Loads by scanning pass a parked row by; every claim of its instance takes it, so no message runs ahead of a parked one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from durabletask_sql.model.instances import InstanceKey


@dataclass(frozen=True, slots=True)
class Park:
    """What to park in one transaction.

    All rows of the instances, those in memory and those that nobody holds, oldest first up to `limit` each; and of
    their due timers those in memory, named by (partition, sequence).
    """

    epochs: Mapping[int, int]
    host_id: int
    instances: tuple[InstanceKey, ...]
    timers: tuple[tuple[int, int], ...]
    limit: int


@dataclass(frozen=True, slots=True)
class Parked:
    """What was parked, or un-parked: (partition, sequence) of messages and of timers.

    Rows that another session has locked are left out. `lost_partitions` are no longer ours.
    """

    messages: frozenset[tuple[int, int]]
    timers: frozenset[tuple[int, int]]
    lost_partitions: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class ParkedPlace:
    """Where looking through the parked rows stands: a partition, timers or messages, and the last row seen.

    Timers come in order of (due time, sequence), messages of sequence, their `after_at` being 0.
    """

    partition: int
    timers: bool = False
    after_at: int = 0
    after: int = 0


@dataclass(frozen=True, slots=True)
class ParkedRow:
    """A parked row with the name of its instance (None: there is none, or it is an entity).

    `starts_at`: its start is due only then. `fire_at` is 0 for messages.
    """

    seq: int
    fire_at: int
    key: InstanceKey
    name: str | None
    version: str | None
    starts_at: int | None


@dataclass(frozen=True, slots=True)
class ParkedCounts:
    """How many instances of each name and version are parked, and how many entities of each name."""

    instances: tuple[tuple[str, str | None, int], ...]
    entities: Mapping[str, int]
