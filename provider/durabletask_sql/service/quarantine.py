"""What operators can do about items that were set aside: list them, look at them, put them back, give them up."""

from collections.abc import AsyncIterator, Mapping, Sequence

from durabletask_sql.clock import Clock
from durabletask_sql.errors import InvalidArgumentError, NotFoundError
from durabletask_sql.model.quarantine import AsideId, AsideItem, AsideOutcome, AsidePage, AsideRow, parse_id
from durabletask_sql.ports.quarantine import QuarantineStore

_MOST_ITEMS = 1_000
_BATCH = 100


class Quarantine:
    """The quarantine of one task hub. Owners find what is put back by their poll, within a second or so."""

    def __init__(self, store: QuarantineStore, clock: Clock) -> None:
        """Take the parts."""
        self._store = store
        self._clock = clock

    async def page(self, *, instance_id: str | None = None, after: str | None = None, limit: int = 100) -> AsidePage:
        """Return one page of items, longest set aside first. Raises InvalidArgumentError for a limit out of range."""
        if not 1 <= limit <= _MOST_ITEMS:
            message = f"a page of {limit} items cannot be had: ask for 1 to {_MOST_ITEMS}"
            raise InvalidArgumentError(message)
        return await self._store.page(instance_id=instance_id, after=after, limit=limit)

    async def get(self, item_id: str) -> tuple[AsideItem, tuple[AsideRow, ...]]:
        """Return an item and its rows. Raises InvalidArgumentError, NotFoundError."""
        found = await self._store.get(_parsed(item_id))
        if found is None:
            message = f"{item_id!r} is not in the quarantine of this task hub (any more): list what is"
            raise NotFoundError(message)
        return found

    async def redrive(self, item_ids: Sequence[str]) -> Mapping[AsideId, AsideOutcome]:
        """Put items back, in one transaction. Raises InvalidArgumentError for what is no item's id."""
        return await self._store.redrive(_all_parsed(item_ids))

    async def fail(self, item_ids: Sequence[str]) -> Mapping[AsideId, AsideOutcome]:
        """Give items up, in one transaction; those who wait for them are told. Raises as `redrive` does."""
        return await self._store.fail(_all_parsed(item_ids), self._clock.now())

    async def batches(self, instance_id: str | None = None) -> AsyncIterator[Sequence[str]]:
        """Yield the ids of all items, or of those of one instance, in batches that one transaction takes."""
        after = None
        while True:
            page = await self._store.page(instance_id=instance_id, after=after, limit=_BATCH)
            if page.items:
                yield [str(item.id) for item in page.items]
            after = page.next
            if after is None:
                return


def _all_parsed(item_ids: Sequence[str]) -> list[AsideId]:
    if len(item_ids) > _MOST_ITEMS:
        message = f"{len(item_ids)} items are too many for one transaction: take at most {_MOST_ITEMS}"
        raise InvalidArgumentError(message)
    return list(map(_parsed, item_ids))


def _parsed(item_id: str) -> AsideId:
    found = parse_id(item_id)
    if found is None:
        message = f"{item_id!r} is not the id of an item that was set aside: ids look like m12, t12 or a12"
        raise InvalidArgumentError(message)
    return found
