"""Which activity tasks a host claims: new ones as they are born, and waiting ones that others left unclaimed."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ActivityRoom:
    """How many new activity tasks are born claimed.

    `lanes` has the lane of each (name, folded version) that somebody here takes, `rooms` how many tasks each lane
    takes. Tasks of other names are born unclaimed.
    """

    lanes: Mapping[tuple[str, str | None], int] = field(default_factory=dict)
    rooms: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ActivityClaim:
    """Unclaimed activity tasks to claim: up to `room`, oldest first, whose event has at most `event_bytes`.

    `name` None: of any name; `version` (folded) None: of any version.
    """

    room: int
    event_bytes: int
    name: str | None = None
    version: str | None = None
