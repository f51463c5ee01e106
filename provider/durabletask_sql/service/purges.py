"""Deleting ended instances: by id, by a filter, with everything below them."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from durabletask_sql.clock import Clock
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.queries import InstanceQuery, Purged, PurgeFilter
from durabletask_sql.model.status import TERMINAL
from durabletask_sql.ports.instances import Instances

_BATCH = 100

Roots = Mapping[InstanceKey, str | None]


class Purges:
    """Purges of one task hub, a batch a transaction, so that none of them holds the database for long."""

    def __init__(self, instances: Instances, clock: Clock) -> None:
        """Take the parts."""
        self._instances = instances
        self._clock = clock

    async def purge(self, keys: Sequence[InstanceKey], *, recursive: bool) -> Purged:
        """Delete those of these instances that have ended; the others stay, with everything below them."""
        count = 0
        for batch in _batches(dict.fromkeys(keys)):
            count += (await self._purge(batch, recursive=recursive, until=None)).count
        return Purged(count)

    async def purge_matching(self, wanted: PurgeFilter, *, recursive: bool) -> Purged:
        """Delete the ended instances that a filter names, until its time is over."""
        until = None if wanted.seconds is None else self._clock.monotonic() + wanted.seconds
        count = 0
        async for batch in self._matching(wanted):
            if self._is_over(until):
                return Purged(count, is_complete=False)
            done = await self._purge(batch, recursive=recursive, until=until)
            count += done.count
            if not done.is_complete:
                return Purged(count, is_complete=False)
        return Purged(count)

    async def _matching(self, wanted: PurgeFilter) -> AsyncIterator[Roots]:
        """Yield what a filter names, a batch at a time, with the execution that it was found in.

        One status after the other: that is how the index on status and creation time is ordered.
        """
        for status in sorted(wanted.statuses & TERMINAL if wanted.statuses else TERMINAL):
            after: str | None = None
            while True:
                page = await self._instances.query(InstanceQuery(
                    frozenset((status,)), wanted.created_from, wanted.created_to, page_size=_BATCH, after=after))
                if page.states:
                    yield {state.row.key: state.row.execution_id for state in page.states}
                if page.next is None:
                    break
                after = page.next

    async def _purge(self, roots: Roots, *, recursive: bool, until: float | None) -> Purged:
        """Delete a batch, what is below it first: a purge that is cut short can be repeated."""
        if not recursive:
            return Purged(len(await self._instances.purge(roots)))
        statuses = await self._instances.statuses(list(roots))
        ended = {key: roots[key] for key, status in statuses.items() if status.is_terminal}
        count = 0
        for level in reversed(await self._levels_below(ended)):
            for batch in _batches(level):
                if self._is_over(until):
                    return Purged(count, is_complete=False)
                count += len(await self._instances.purge(batch))
        return Purged(count + len(await self._instances.purge(ended)))

    async def _levels_below(self, roots: Iterable[InstanceKey]) -> list[Roots]:
        """Return the ended sub-orchestrations of these instances, of any execution, level by level.

        What is below one that still runs belongs to it and is left alone with it. Each comes with the execution that it
        was found in: its id may be given to another meanwhile.
        """
        levels: list[Roots] = []
        seen, level = set(roots), list(roots)
        while level:
            below = await self._instances.children(level)
            found = {row.key: row.execution_id for row in below if row.status.is_terminal and row.key not in seen}
            seen.update(found)
            levels.append(found)
            level = list(found)
        return levels

    def _is_over(self, until: float | None) -> bool:
        return until is not None and self._clock.monotonic() >= until


def _batches(roots: Roots) -> Iterable[Roots]:
    listed = list(roots.items())
    for start in range(0, len(listed), _BATCH):
        yield dict(listed[start:start + _BATCH])
