"""Every few seconds: leave to others the activity tasks that nobody here takes, and tell what nobody takes at all."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from durabletask_sql.clock import Clock
from durabletask_sql.dispatch.board import Board
from durabletask_sql.dispatch.unserved import REPORT_SECONDS, Unserved, WorkClass
from durabletask_sql.errors import DurableTaskSqlError
from durabletask_sql.ports.committer import Committer
from durabletask_sql.ports.work import WorkKind

_log = logging.getLogger(__name__)

_SECONDS = 5.0
_LOOKED_AT = 10_000


class Upkeep:
    """The upkeep of one task hub's work."""

    def __init__(self, committer: Committer, board: Board, clock: Clock, host_id: int,
                 gave_back: Callable[[], None]) -> None:
        """Take the parts; `gave_back` is told when tasks were left to others."""
        self._committer = committer
        self._board = board
        self._clock = clock
        self._host_id = host_id
        self._gave_back = gave_back
        self._stored: Counter[WorkClass] = Counter()
        self._counted_at = clock.monotonic() - REPORT_SECONDS
        self.unserved = Unserved(clock)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        try:
            await self._give_back()
            if self._clock.monotonic() - self._counted_at >= REPORT_SECONDS:
                self._counted_at = self._clock.monotonic()
                self._stored = await self._count_stored()
        except DurableTaskSqlError as error:
            _log.warning("activity tasks could not be looked after, trying again in %.0f s: %s", _SECONDS, error)
        self._board.pump()  # an accused may have waited long enough
        self.unserved.look(self._board.unserved() + self._stored)

    async def _give_back(self) -> None:
        surplus = self._board.take_surplus()
        if surplus:
            try:
                await self._committer.give_back(self._host_id, surplus)
            except DurableTaskSqlError:
                self._board.add_activities(surplus)  # by now somebody may take them
                raise
            self._gave_back()

    async def _count_stored(self) -> Counter[WorkClass]:
        """Count what waits in the database alone: unclaimed tasks and what is parked, if nobody here takes it."""
        tasks = await self._committer.count_unclaimed(_LOOKED_AT)
        parked = await self._committer.count_parked(_LOOKED_AT)
        found = [(WorkKind.ACTIVITY, *row) for row in tasks if not self._board.takes_activity(*row[:2])]
        found += [(WorkKind.ORCHESTRATION, *row) for row in parked.instances if not self._board.takes_turn(*row[:2])]
        found += [(WorkKind.ENTITY, name, None, count) for name, count in parked.entities.items()
                  if not self._board.takes_entity(name)]
        return Counter({WorkClass(kind, name, version): count for kind, name, version, count in found})
