"""The loops of a host that are to run until it stops: none may end by itself, least of all in silence.

A host whose owner loop has died, say, would go on sending heartbeats, and nobody would take over what it does not do any
more. So whoever has the host is told, and stops it.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine

from durabletask_sql.errors import LoopEndedError

_log = logging.getLogger(__name__)


class Loops:
    """The loops of one task hub on one host."""

    def __init__(self, hub: str, failed: Callable[[LoopEndedError], None]) -> None:
        """`failed` is told of each loop that ends before `stop`, which is always by a bug."""
        self._hub = hub
        self._failed = failed
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.have_failed = False

    def start(self, name: str, work: Coroutine[None, None, None]) -> None:
        """Begin one; `name` is what it is called where its end is told."""
        self._tasks.append(asyncio.create_task(self._watch(name, work)))

    async def stop(self) -> None:
        """End them all."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, name: str, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except (Exception, asyncio.CancelledError) as error:
            if self._stopping:
                raise
            self._tell(name, error)
        else:
            self._tell(name, None)

    def _tell(self, name: str, error: BaseException | None) -> None:
        how = "it returned" if error is None else f"{type(error).__name__}: {error}".removesuffix(": ")
        message = (f"the loop {name!r} of task hub {self._hub!r} has ended by a bug ({how}): this host does no more work "
                   f"there, and has to be started again")
        _log.critical("%s", message, exc_info=error)
        self.have_failed = True
        self._failed(LoopEndedError(message))
