"""What an examination finds: each finding names a check, a thing, what is wrong with it and what to do."""

from dataclasses import dataclass
from enum import StrEnum

from durabletask_sql.model.belongings import Belonging


class Level(StrEnum):
    """How bad it is: a problem breaks a promise; a note is legal and worth knowing."""

    PROBLEM = "problem"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class DeleteRows:
    """Delete rows that belong to nobody."""

    belonging: Belonging


@dataclass(frozen=True, slots=True)
class ReleaseClaims:
    """Give back the activity tasks of a host that is gone."""

    host_id: int


@dataclass(frozen=True, slots=True)
class LowerHeld:
    """Have nobody hold what is held under an epoch that never was."""

    table: str
    partition: int


@dataclass(frozen=True, slots=True)
class ReleaseLock:
    """Free the lock of an entity whose holder does not live."""

    entity_id: str


Repair = DeleteRows | ReleaseClaims | LowerHeld | ReleaseLock


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found. `subject` is an instance's id, or what else it is about.

    `passing`: a hub in motion may look so for a moment; it counts only if it is still so after a while.
    """

    check: str
    subject: str
    text: str
    advice: str
    level: Level = Level.PROBLEM
    passing: bool = False
    repair: Repair | None = None
