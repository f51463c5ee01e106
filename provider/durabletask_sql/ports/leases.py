"""Ownership of partitions: hosts, epochs. All times are the database's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


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


class Leases(Protocol):
    """Lease work; it has a connection of its own, so that a busy committer cannot lose a lease."""

    async def register(self, identity: HostIdentity, lease_seconds: float) -> int:
        """Insert the host's row and return the database's time in microseconds UTC."""
        ...

    async def heartbeat(self, host_id: int, lease_seconds: float) -> int:
        """Renew the host's row and return the database's time; raise PartitionLostError if the row is gone."""
        ...

    async def acquire(self, identity: HostIdentity) -> Mapping[int, OwnedPartition]:
        """Take every partition that nobody owns or whose owner is dead, raising its epoch.

        Dead: no row, heartbeat expired, or a process of this machine that is gone. The claims of dead hosts on
        activity tasks are released, their rows removed. Return all partitions that the host now owns.
        """
        ...

    async def raise_epochs(self, host_id: int, epochs: Mapping[int, int]) -> Mapping[int, int]:
        """Raise the epochs of these partitions, where host and epoch still match; return the new ones.

        Waits for transactions that hold the partitions (zombies of a lost connection), up to one lease.
        """
        ...

    async def release(self, host_id: int) -> None:
        """Give everything back and remove the host's row: a clean stop."""
        ...
