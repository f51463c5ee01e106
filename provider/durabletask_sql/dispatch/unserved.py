"""What waits because no connected worker takes it: counted, and told once a while for each name."""

import logging
from collections.abc import Mapping
from typing import NamedTuple

from durabletask_sql.clock import Clock
from durabletask_sql.ports.work import WorkKind

_log = logging.getLogger(__name__)

REPORT_SECONDS = 60.0


class WorkClass(NamedTuple):
    """Work that no connected worker takes: by its name and version, or because it is too large for those that do."""

    kind: WorkKind
    name: str
    version: str | None
    too_large: bool = False

    def __str__(self) -> str:
        """Name it for a log."""
        version = f" version {self.version!r}" if self.version else ""
        return f"{self.kind.value} {self.name!r}{version}"


class Unserved:
    """The classes of work that nobody takes, with how much of each is known to wait."""

    def __init__(self, clock: Clock) -> None:
        """Begin with none."""
        self._clock = clock
        self._said: dict[WorkClass, float] = {}
        self.waiting: Mapping[WorkClass, int] = {}

    def look(self, waiting: Mapping[WorkClass, int]) -> None:
        """Take in what waits now. What waited already when this was called last is told, at most once a minute."""
        now, before = self._clock.monotonic(), self.waiting
        self.waiting = waiting
        self._said = {work: said for work, said in self._said.items() if work in waiting}
        for work, count in waiting.items():
            if work in before and now - self._said.get(work, now - REPORT_SECONDS) >= REPORT_SECONDS:
                self._said[work] = now
                why = ("none that takes them can read them: see what was logged when they were set aside"
                       if work.too_large else "no connected worker takes them: start one that registers this name "
                       "and version, or widen its work-item filters")
                _log.warning("%s: at least %d wait, because %s", work, count, why)
