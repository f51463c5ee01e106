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
    """One page, in order of (created_at, instance_id), or of instance_id if a prefix was asked for.

    It may be shorter than asked, even empty, although there is a next one: `next` is None on the last one.
    """

    states: tuple[InstanceState, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class EndedQuery:
    """A filter over the instances of a hub that have ended; conditions combine with AND. Entities never end.

    `completed_from` is inclusive, `completed_to` exclusive (microseconds UTC). No statuses means all terminal ones,
    and those that are not terminal match nothing. `after` is the key of the page before.
    """

    statuses: frozenset[Status] = frozenset()
    completed_from: int | None = None
    completed_to: int | None = None
    page_size: int = 100
    after: str | None = None


@dataclass(frozen=True, slots=True)
class EndedPage:
    """One page of ids, in order of (completed_at, instance_id); `next` is None on the last one."""

    instance_ids: tuple[str, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class PurgeFilter:
    """Which ended instances to delete; conditions combine with AND, and statuses that are not terminal match nothing.

    `created_from` is inclusive, `created_to` exclusive (microseconds UTC). `seconds` is how long the purge may take
    before it stops with what it has done; None lets it run to the end.
    """

    statuses: frozenset[Status] = frozenset()
    created_from: int | None = None
    created_to: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Purged:
    """How many instances a purge has deleted, and whether it came to its end."""

    count: int
    is_complete: bool = True
