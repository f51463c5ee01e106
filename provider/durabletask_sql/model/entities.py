"""Entities: their ids, their rows, who holds their lock, and what clients ask about them."""

from dataclasses import dataclass
from typing import NamedTuple

from durabletask_sql.ids import is_entity
from durabletask_sql.model.instances import InstanceKey


def is_entity_id(instance_id: str) -> bool:
    """Tell whether an id has the form "@name@key": a name without '@', and a key that is not empty (S-325)."""
    if not is_entity(instance_id) or "\0" in instance_id:
        return False
    name, _, key = instance_id[1:].partition("@")
    return bool(name) and bool(key)


class LockOwner(NamedTuple):
    """Who holds a lock or asks for it: a critical section of one execution, not of an instance id (S-344)."""

    instance_id: str
    execution_id: str
    section_id: str


@dataclass(frozen=True, slots=True)
class EntityRow:
    """The row of `entities`: there is one exactly as long as there is a state or a lock.

    `row_version` is the fence of batches; it rises with each. `modified_at` in microseconds UTC.
    """

    partition: int
    instance_id: str
    row_version: int
    state: str | None
    modified_at: int
    lock: LockOwner | None = None

    @property
    def key(self) -> InstanceKey:
        """Where the entity lives."""
        return InstanceKey(self.partition, self.instance_id)


@dataclass(frozen=True, slots=True)
class EntityState:
    """What queries return: the row, and how many messages wait for the entity."""

    row: EntityRow
    backlog: int


@dataclass(frozen=True, slots=True)
class EntityQuery:
    """A filter over the entities of a hub; conditions combine with AND.

    `modified_from` is inclusive, `modified_to` exclusive (microseconds UTC). `transient` includes entities without
    state (those that are locked). `states` fetches the states. `after` is the token of the page before.
    """

    prefix: str = ""
    modified_from: int | None = None
    modified_to: int | None = None
    transient: bool = False
    states: bool = False
    page_size: int = 100
    after: str | None = None


@dataclass(frozen=True, slots=True)
class EntityPage:
    """One page, in order of id; `next` is None on the last one."""

    entities: tuple[EntityState, ...]
    next: str | None
