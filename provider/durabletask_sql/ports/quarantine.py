"""What operators see of the quarantine, and do with it. Each write is one transaction of its own.

Rows written here are held by nobody: owners find them by their poll. Writes raise UnavailableError when nothing was
changed, OutcomeUnknownError when that cannot be told even afterwards.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from durabletask_sql.model.quarantine import AsideId, AsideItem, AsideOutcome, AsidePage, AsideRow


class QuarantineStore(Protocol):
    """The set-aside items of one task hub."""

    async def page(self, *, instance_id: str | None, after: str | None, limit: int) -> AsidePage:
        """Return one page, of one instance or of all, longest set aside first."""
        ...

    async def get(self, item_id: AsideId) -> tuple[AsideItem, tuple[AsideRow, ...]] | None:
        """Return an item with its rows, by source and sequence."""
        ...

    async def redrive(self, item_ids: Sequence[AsideId]) -> Mapping[AsideId, AsideOutcome]:
        """Put items back where they were taken from, at the end of the queues, in the order in which they once came.

        Rows of an execution that is over stay: an item with no others is ENDED and keeps its place.
        """
        ...

    async def fail(self, item_ids: Sequence[AsideId], now: int) -> Mapping[AsideId, AsideOutcome]:
        """Give items up, and tell those who wait for them: orchestrations end FAILED, calls of activities, entities fail.

        An item that nobody waits for any more is only removed. UNFAILABLE items stay.
        """
        ...
