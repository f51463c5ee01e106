"""Fetches the large texts of instances that are about to run, beside the committer loop: texts never change."""

import asyncio
import logging
from collections.abc import Callable

from durabletask_sql.errors import UnavailableError
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.ports.committer import Committer, HollowHistory

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.5
_DAMAGED_SECONDS = 60.0


class Filler:
    """The fetches under way."""

    def __init__(self, committer: Committer, memory: Memory, ready: Callable[[], None]) -> None:
        """`ready` is told when an instance may run."""
        self._committer = committer
        self._memory = memory
        self._ready = ready
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to fetch what memory wants and has room for."""
        for hollow in self._memory.filling.take():
            task = asyncio.create_task(self._fill(hollow))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _fill(self, hollow: HollowHistory) -> None:
        """Fetch one history's texts, for as long as they are wanted."""
        history = None
        while self._memory.filling.is_current(hollow):
            try:
                history = await self._committer.fill(hollow)
                break
            except UnavailableError as error:
                _log.warning("instance %r: its large texts cannot be read yet, trying again: %s",
                             hollow.key.instance_id, error)
                await asyncio.sleep(_RETRY_SECONDS)
            except Exception:
                _log.exception("instance %r: its history cannot be put together; it runs no turn before it can, trying "
                               "again in %.0f s", hollow.key.instance_id, _DAMAGED_SECONDS)
                await asyncio.sleep(_DAMAGED_SECONDS)
        self._memory.filled(hollow, history)
        self._ready()
