"""What clients ask about instances."""

from dataclasses import dataclass

from durabletask_sql.model.instances import InstanceState
from durabletask_sql.model.status import Status


@dataclass(frozen=True, slots=True)
class InstanceQuery:
    """A filter over the instances of a hub; conditions combine with AND. Entities ('@...') are never returned.

    `created_from` is inclusive, `created_to` exclusive (microseconds UTC). No statuses means all. `after` is the
    token of the page before. `payloads` fetches inputs and outputs.
    """

    statuses: frozenset[Status] = frozenset()
    created_from: int | None = None
    created_to: int | None = None
    prefix: str = ""
    page_size: int = 100
    after: str | None = None
    payloads: bool = False


@dataclass(frozen=True, slots=True)
class InstancePage:
    """One page, in order of (created_at, instance_id); `next` is None on the last one."""

    states: tuple[InstanceState, ...]
    next: str | None
