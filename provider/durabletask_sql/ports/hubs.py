"""Task hubs: named, isolated tenants of one database."""

from dataclasses import dataclass
from typing import Protocol

from durabletask_sql.ports.committer import Committer
from durabletask_sql.ports.deliveries import DeliveryStore
from durabletask_sql.ports.entities import EntityStore
from durabletask_sql.ports.instances import Instances
from durabletask_sql.ports.leases import Leases
from durabletask_sql.ports.quarantine import QuarantineStore
from durabletask_sql.ports.wakeups import Wakeups


@dataclass(frozen=True, slots=True)
class TaskHub:
    """A task hub as its row says it is. The partition count never changes after creation."""

    hub_id: int
    name: str
    partition_count: int


class Store(Protocol):
    """One database, opened: it finds or creates hubs, and gives the ports of each."""

    @property
    def shown(self) -> str:
        """The URL without its password."""
        ...

    async def open_hub(self, name: str, partition_count: int | None) -> TaskHub:
        """Return the hub, created when missing with this many partitions (None: 4 on SQLite, 16 on PostgreSQL)."""
        ...

    async def find_hub(self, name: str) -> TaskHub | None:
        """Return the hub with this name, if there is one."""
        ...

    async def empty_hub(self, hub: TaskHub) -> None:
        """Delete everything that a hub holds, in one transaction; it stays, and its partitions keep their owners.

        All its epochs rise: what an owner has in memory counts no more. Raises as clients' writes do.
        """
        ...

    def committer(self, hub: TaskHub) -> Committer:
        """Return the owner's committer of a hub."""
        ...

    def instances(self, hub: TaskHub) -> Instances:
        """Return the clients' side of a hub."""
        ...

    def entities(self, hub: TaskHub) -> EntityStore:
        """Return the clients' side of a hub's entities."""
        ...

    def leases(self, hub: TaskHub) -> Leases:
        """Return the lease side of a hub."""
        ...

    def deliveries(self, hub: TaskHub) -> DeliveryStore:
        """Return where a hub keeps what it knows of deliveries."""
        ...

    def quarantine(self, hub: TaskHub) -> QuarantineStore:
        """Return the operators' side of what a hub has set aside."""
        ...

    def wakeups(self, hub: TaskHub, host_id: int) -> Wakeups:
        """Return a host's line to the other hosts of a hub."""
        ...

    async def close(self) -> None:
        """Finish what is under way and close all connections."""
        ...
