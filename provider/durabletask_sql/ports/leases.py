"""Ownership of partitions: hosts, epochs. All times are the database's; who lives is `partitions.liveness`'s to say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

NOBODY = 0


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """One incarnation of a host. `machine` (boot and process namespace) with `pid` tells whether a predecessor lives."""

    host_id: int
    name: str
    machine: str
    pid: int
    started_at: str


@dataclass(frozen=True, slots=True)
class OwnedPartition:
    """A partition that a host owns under `epoch`. `after_loss`: it was taken from a host that had not released it."""

    epoch: int
    after_loss: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """A partition as its row says: who owns it, under which epoch, and to whom it is promised (0: nobody)."""

    partition: int
    owner: int
    epoch: int
    next_owner: int = NOBODY


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The last sign of life of a host, as its row has it: when it came, and until when it asked to be believed.

    In microseconds UTC, by the clock that the database had then. `gone`: its process on this machine does not run.
    """

    at: int
    expires_at: int
    gone: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """The hosts that have a row and who owns what, at a moment `now` of the database's time."""

    hosts: Mapping[int, Heartbeat]
    leases: Sequence[Lease]
    now: int


class Leases(Protocol):
    """Lease work; it has a connection of its own, so that a busy committer cannot lose a lease."""

    async def register(self, identity: HostIdentity, lease_seconds: float) -> int:
        """Insert the host's row and return the database's time in microseconds UTC."""
        ...

    async def heartbeat(self, host_id: int, lease_seconds: float) -> int:
        """Renew the host's row and return the database's time; raise PartitionLostError if the row is gone."""
        ...

    async def look(self, identity: HostIdentity) -> View:
        """Read who lives and who owns what; writes nothing."""
        ...

    async def acquire(self, identity: HostIdentity, wanted: Sequence[Lease],
                      dead: Mapping[int, int]) -> Mapping[int, OwnedPartition]:
        """Take these partitions as far as they are still as they were seen, and free, or their owner still dead.

        `dead` are hosts by when their last heartbeat came: one that has sent another since lives. Raises the epochs of
        what is taken, and releases the activity tasks that the dead had claimed. Those that own nothing any more lose
        their row. What another session holds locked is left for the next time. Returns what was taken.
        """
        ...

    async def ask(self, host_id: int, wanted: Sequence[Lease]) -> None:
        """Have these partitions promised to this host, as far as they are still as they were seen."""
        ...

    async def hand_over(self, host_id: int, epochs: Mapping[int, int], heirs: Mapping[int, int]) -> None:
        """Release partitions, each to its heir alone as long as that lives, where host and epoch still match."""
        ...

    async def raise_epochs(self, host_id: int, epochs: Mapping[int, int]) -> Mapping[int, int]:
        """Raise the epochs of these partitions, where host and epoch still match; return those of all that it owns.

        Waits for transactions that hold the partitions (zombies of a lost connection), up to one lease.
        """
        ...

    async def release(self, host_id: int) -> None:
        """Give everything back and remove the host's row: a clean stop."""
        ...
