"""What was set aside: items that cannot be carried out, with the rows that they consist of."""

import re
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple

from durabletask_sql.ids import is_entity
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import MessageKind
from durabletask_sql.model.status import Status

_ID = re.compile(r"(?P<source>[mta])(?P<seq>[0-9]{1,19})")
_LARGEST = 2**63 - 1  # what the database's numbers hold


class Source(IntEnum):
    """The table that a row was taken from."""

    MESSAGE = 0
    TIMER = 1
    TASK = 2


_LETTERS = {"m": Source.MESSAGE, "t": Source.TIMER, "a": Source.TASK}


class AsideId(NamedTuple):
    """What names an item: the first row that it consisted of. Sequences are never given out twice."""

    source: Source
    seq: int

    def __str__(self) -> str:
        """Return it as operators see it: m12, say."""
        return f"{next(letter for letter, source in _LETTERS.items() if source is self.source)}{self.seq}"


def parse_id(text: str) -> AsideId | None:
    """Return an id as operators write it; None for anything else."""
    found = _ID.fullmatch(text)
    if found is None or int(found["seq"]) > _LARGEST:
        return None
    return AsideId(_LETTERS[found["source"]], int(found["seq"]))


class AsideKind(Enum):
    """What an item is."""

    TURN = "turn"
    ENTITY = "entity"
    ACTIVITY = "activity"


@dataclass(frozen=True, slots=True)
class AsideItem:
    """An item that was set aside, as lists show it. Times are microseconds UTC.

    `execution_id` is the one that it belongs to (None: whichever runs), `name` the orchestrator's, the entity's or the
    activity's where it is known. `rows` and `size` say how many rows it has and how many bytes they hold. `status` is
    its instance's now; None: there is none (entities have none).
    """

    id: AsideId
    key: InstanceKey
    execution_id: str | None
    name: str | None
    version: str | None
    cause: str
    worker: str | None
    attempts: int
    set_aside_at: int
    rows: int
    size: int
    status: Status | None

    @property
    def kind(self) -> AsideKind:
        """What it is."""
        if self.id.source is Source.TASK:
            return AsideKind.ACTIVITY
        return AsideKind.ENTITY if is_entity(self.key.instance_id) else AsideKind.TURN


@dataclass(frozen=True, slots=True)
class AsideRow:
    """One row of an item, as it stood in its queue. What its source does not have is None."""

    source: Source
    seq: int
    execution_id: str | None
    kind: MessageKind
    fire_at: int | None
    task_id: int | None
    name: str | None
    version: str | None
    content: bytes


@dataclass(frozen=True, slots=True)
class AsidePage:
    """One page of items, longest set aside first; `next` is None on the last one."""

    items: tuple[AsideItem, ...]
    next: str | None


class AsideOutcome(Enum):
    """What became of an item that was to leave the quarantine."""

    DONE = "done"
    ENDED = "ended"  # the execution that it belongs to is over: nothing can be put back
    GONE = "gone"  # there is no such item (any more)
    UNFAILABLE = "unfailable"  # nobody can be told of its failure
