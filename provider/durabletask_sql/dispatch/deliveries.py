"""Keeps marks, and what is out while this host is careful: a loop of its own, beside the committer's.

After a partition's owner was lost its successor is careful for a while: what it hands out is written down before it is
sent, so that what it had out is known if it is lost as well. Otherwise nothing is written and nothing waits.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from durabletask_sql.clock import Clock
from durabletask_sql.dispatch.ports import Carefully
from durabletask_sql.errors import DurableTaskSqlError
from durabletask_sql.model.deliveries import Mark, Out, RowKey
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.partitions.suspects import Suspicion
from durabletask_sql.ports.deliveries import DeliveryStore

_log = logging.getLogger(__name__)

CAREFUL_SECONDS = 600.0
_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 0.25
GATHER_SECONDS = 0.1  # marks wait for others: they count only once another host has their rows


class Deliveries:
    """What one host keeps of its deliveries for one task hub."""

    def __init__(self, store: DeliveryStore, memory: Memory, suspicion: Suspicion, clock: Clock, host_id: int,
                 pump: Callable[[], None]) -> None:
        """Take the parts; `run` does the work. `pump` hands out what waited for this host to be careful no more."""
        self._store = store
        self._memory = memory
        self._suspicion = suspicion
        self._clock = clock
        self._host_id = host_id
        self._pump = pump
        self._event = asyncio.Event()
        self._marks: dict[RowKey, Mark] = {}
        self._leaving: list[Carefully] = []
        self._careful_until = 0.0
        self._has_ended = False  # being careful; what is still written down says nothing any more

    def mark(self, marks: Sequence[Mark]) -> None:
        """Keep how often deliveries have failed."""
        self._marks.update((mark.row, mark) for mark in marks)
        self._event.set()

    def be_careful(self) -> None:
        """The last owner of a partition was lost: write down what is handed out, for a while."""
        self._careful_until = self._clock.monotonic() + CAREFUL_SECONDS
        if not self._suspicion.careful:
            self._suspicion.careful = True
            _log.warning("the host that had these partitions was lost: being careful for %.0f s", CAREFUL_SECONDS)
            self._event.set()

    def deliver(self, one: Carefully) -> None:
        """Send an item once it is written down."""
        self._leaving.append(one)
        self._event.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS if self._suspicion.careful else None):
                    await self._event.wait()
            if not self._suspicion.careful:
                await asyncio.sleep(GATHER_SECONDS)
            self._event.clear()
            try:
                await self._write()
            except DurableTaskSqlError as error:
                _log.warning("what is known of deliveries cannot be kept yet, trying again: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
                self._event.set()

    async def _write(self) -> None:
        if self._marks:
            kept = dict(self._marks)
            await self._store.mark(self._host_id, dict(self._memory.epochs), list(kept.values()))
            self._marks = {row: mark for row, mark in self._marks.items() if kept.get(row) != mark}
        if self._has_ended:  # before anything is written down anew
            await self._store.forget(self._host_id)
            self._has_ended = False
            self._pump()
        if self._suspicion.careful:
            await self._write_down()
            if self._clock.monotonic() >= self._careful_until:
                self._suspicion.careful, self._has_ended = False, True
                self._suspicion.returned.clear()
                self._send(self._leaving)
                self._leaving = []
                self._event.set()

    async def _write_down(self) -> None:
        """Write down what is about to go out, and strike out what has come back; then send."""
        leaving, back = list(self._leaving), list(self._suspicion.returned)
        if not leaving and not back:
            return
        out = [Out(row, one.delivery.is_suspect) for one in leaving if one.is_wanted() for row in one.delivery.rows]
        await self._store.record(self._host_id, out, back)
        del self._leaving[:len(leaving)], self._suspicion.returned[:len(back)]
        self._send(leaving)

    def _send(self, leaving: Sequence[Carefully]) -> None:
        """Send what is still wanted. The rest must not keep its seat: as a suspect it would keep all others waiting."""
        freed = False
        for one in leaving:
            if one.is_wanted():
                one.send()
            else:
                one.forget()
                freed = True
        if freed:
            self._pump()
