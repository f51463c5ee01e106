"""What hosts tell each other after a commit, so that nobody has to wait for a poll. Advisory: the poll is underneath.

Nothing is told before its transaction is durable, and nothing is decided by what is heard: it only says where to look.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from durabletask_sql.model.instances import InstanceKey


@dataclass(frozen=True, slots=True)
class News:
    """Where to look.

    `work` are instances that got rows which nobody holds, `scan` partitions with such rows of many instances, `delayed`
    partitions with delayed rows. `tasks`: there are unclaimed activity tasks. `changed` are instances that started,
    ended or began anew. `anything`: something was written, or may have been missed.
    """

    work: frozenset[InstanceKey] = frozenset()
    scan: frozenset[int] = frozenset()
    delayed: frozenset[int] = frozenset()
    tasks: bool = False
    changed: frozenset[InstanceKey] = frozenset()
    anything: bool = False

    def __bool__(self) -> bool:
        """Tell whether there is anything to look at."""
        return bool(self.work or self.scan or self.delayed or self.tasks or self.changed or self.anything)

    @classmethod
    def together(cls, parts: Sequence["News"]) -> "News":
        """Return several as one."""
        return cls(frozenset().union(*(part.work for part in parts)), frozenset().union(*(part.scan for part in parts)),
                   frozenset().union(*(part.delayed for part in parts)), any(part.tasks for part in parts),
                   frozenset().union(*(part.changed for part in parts)), any(part.anything for part in parts))


class Wakeups(Protocol):
    """The line between the hosts of one task hub, for one of them."""

    @property
    def hears(self) -> bool:
        """Whether what others tell arrives here at present, so that polls may be rare."""
        ...

    @property
    def is_heard(self) -> bool:
        """Whether somebody else listens, as far as is known, so that telling is worth it."""
        ...

    async def run(self, hear: Callable[[News], None]) -> None:
        """Listen until cancelled, connecting again after a loss; `hear` is called on the event loop."""
        ...

    async def tell(self, news: News) -> None:
        """Tell the others. Raises UnavailableError when that cannot be done now."""
        ...
