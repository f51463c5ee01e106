"""What a rewind asks the store to write: failed instances begin again where they failed, all in one transaction."""

from dataclasses import dataclass

from durabletask_sql.model.checkpoints import HistoryAppend, NewChild
from durabletask_sql.model.instances import InstanceKey, InstanceRow, ParentLink
from durabletask_sql.model.messages import NewMessage, NewTimer


@dataclass(frozen=True, slots=True)
class RewoundInstance:
    """A failed instance as a new execution: its cleaned history, its timers, and a start row that wakes it.

    `row` is the row afterwards, with `row_version` one above `expected_version`, the fence. The new execution keeps
    the input of the one that failed.
    """

    expected_version: int
    failed_execution_id: str
    row: InstanceRow
    history: tuple[HistoryAppend, ...]
    timers: tuple[NewTimer, ...]
    start: NewMessage

    @property
    def key(self) -> InstanceKey:
        """The instance."""
        return self.row.key


@dataclass(frozen=True, slots=True)
class Relink:
    """A sub-orchestration that did not fail, to be linked to its parent's new execution.

    It must still hang on `old`. One that lives goes on (`expected_version` is None), one that has ended meanwhile must
    be as it was read.
    """

    key: InstanceKey
    old: ParentLink
    new: ParentLink
    expected_version: int | None = None


@dataclass(frozen=True, slots=True)
class NewAgain:
    """A sub-orchestration that is gone, or whose id an ended stranger has taken: it is created again.

    `replaced` is that stranger's row; None: the id must be free.
    """

    child: NewChild
    replaced: InstanceRow | None = None


@dataclass(frozen=True, slots=True)
class Rewind:
    """A failed instance with everything below it. It takes effect whole, and only if what it was made from still holds.

    `told` goes to parents of sub-orchestrations that have ended meanwhile, which report once more, or cannot be created
    again, since their id is taken.
    """

    instances: tuple[RewoundInstance, ...]
    relinked: tuple[Relink, ...] = ()
    created: tuple[NewAgain, ...] = ()
    told: tuple[NewMessage, ...] = ()
