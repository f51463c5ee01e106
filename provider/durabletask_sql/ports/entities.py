"""What clients do to entities and ask about them. Each write is one transaction of its own, never the owner's.

Rows written here are held by nobody: the caller wakes the owner afterwards. Writes raise UnavailableError when nothing
was changed, OutcomeUnknownError when that cannot be told even afterwards.
"""

from dataclasses import dataclass
from typing import Protocol

from durabletask_sql.model.entities import EntityPage, EntityQuery, EntityState
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import NewMessage, NewTimer


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What a clean-up did: the entities that got releases, and where to go on (None: everything was looked at)."""

    released: frozenset[InstanceKey]
    next: str | None


class EntityStore(Protocol):
    """Clients' writes and reads of entities."""

    async def signal(self, message: NewMessage | NewTimer) -> None:
        """Queue a signal, delayed or not, for an entity that need not exist."""
        ...

    async def get(self, key: InstanceKey) -> EntityState | None:
        """Return the committed row of an entity, if it has one, and its backlog."""
        ...

    async def query(self, query: EntityQuery) -> EntityPage:
        """Return one page by keyset; never an empty one that is not the last."""
        ...

    async def purge(self, key: InstanceKey) -> bool:
        """Delete an entity's state; its lock and what waits for it stay. Tell whether there was a state."""
        ...

    async def release_orphans(self, now: int, after: str | None, limit: int) -> Cleaned:
        """Queue a release for locks whose section's execution does not live any more, up to so many of them.

        A lock to which a release is on its way already is no orphan.
        """
        ...
