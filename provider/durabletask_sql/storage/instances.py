"""Clients' writes and reads in SQL: implements `ports.instances.Instances` for one hub."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from sqlalchemy import bindparam, select

from durabletask_sql.model.creation import Decision
from durabletask_sql.model.instances import InstanceKey, InstanceRow, InstanceState
from durabletask_sql.model.messages import NewMessage
from durabletask_sql.model.queries import EndedPage, EndedQuery, InstancePage, InstanceQuery
from durabletask_sql.model.rewinds import Rewind
from durabletask_sql.model.status import TERMINAL, Status
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.instances import Created, Creation, Sent, Termination
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.codec import decode_instance
from durabletask_sql.storage.creation import create
from durabletask_sql.storage.database import Database
from durabletask_sql.storage.dialect import BIGINT, BYTES, SMALLINT, Statement
from durabletask_sql.storage.packing import pack_ahead
from durabletask_sql.storage.purge import purge
from durabletask_sql.storage.queries import (
    READ_CHILDREN,
    read_ended_page,
    read_instance,
    read_page,
    read_rows,
    read_statuses,
)
from durabletask_sql.storage.rewind import pack_rewind, rewind
from durabletask_sql.storage.session import Session, repeated
from durabletask_sql.storage.tables import control_queue, instances
from durabletask_sql.storage.termination import terminate, terminate_now
from durabletask_sql.storage.texts import read_history
from durabletask_sql.storage.transactions import transact

T = TypeVar("T")

_ENDED = sorted(int(status) for status in TERMINAL)

# A message for an instance that is there and has not ended, in one statement: no lock, no row changed.
SEND = Statement("control_queue", lambda v: (
    control_queue.insert().from_select(
        ["hub_id", "partition", "instance_id", "execution_id", "kind", "held_epoch", "events"],
        select(instances.c.hub_id, instances.c.partition, instances.c.instance_id, v.c.execution_id, v.c.kind,
               bindparam("held", type_=BIGINT), v.c.events)
        .select_from(v.join(instances, sql.by_key(instances, v)))
        .where(*(instances.c.status != number for number in _ENDED))).returning(control_queue.c.seq)),
    {**sql.EXECUTIONS, "kind": SMALLINT, "events": BYTES})


class SqlInstances:
    """The clients' side of one hub."""

    def __init__(self, database: Database, hub: TaskHub) -> None:
        """Take the client and reader lanes of this database."""
        self._database = database
        self._hub = hub

    async def create(self, creation: Creation) -> Created:
        """Dedupe check, row, start message and event in one transaction (S-413)."""
        packed = await pack_ahead(creation.input)
        created = await transact(self._database, lambda session: create(session, self._hub, creation, packed))
        return replace(created, woken=frozenset()) if created.decision in (Decision.KEEP, Decision.REFUSE) else created

    async def send(self, message: NewMessage) -> Sent:
        """Queue a message for an instance that exists and has not ended; otherwise change nothing (S-286)."""
        def work(session: Session) -> Sent:
            row = (*message.key, message.execution_id, int(message.kind), message.events)
            rows = session.ask(SEND, [row], hub=self._hub.hub_id, held=0)
            return Sent(woken=frozenset({message.key} if rows else ()))

        return await transact(self._database, work)

    async def terminate(self, termination: Termination) -> Sent:
        """End an instance without committed history at once, else queue the termination (S-416)."""
        return await transact(self._database, lambda session: terminate(session, self._hub, termination))

    async def terminate_now(self, keys: Sequence[InstanceKey], reason: str | None, now: int) -> Sent:
        """End instances at once, in one transaction; ended and unknown ones stay as they are."""
        if not keys:
            return Sent()
        return await transact(self._database, lambda session: terminate_now(session, self._hub, keys, reason, now))

    async def rewind(self, plan: Rewind) -> bool:
        """Carry out a rewind in one transaction; False, with nothing changed, when it does not fit any more."""
        packed = await asyncio.to_thread(pack_rewind, plan)
        return await transact(self._database, lambda session: rewind(session, self._hub.hub_id, plan, packed))

    async def purge(self, executions: Mapping[InstanceKey, str | None]) -> frozenset[InstanceKey]:
        """Delete everything about those that have ended, in one transaction; return which."""
        if not executions:
            return frozenset()
        return await transact(self._database, lambda session: purge(session, self._hub.hub_id, executions))

    async def get(self, key: InstanceKey, *, payloads: bool) -> InstanceState | None:
        """Return the committed state of one instance."""
        return await self._database.points.run(lambda session: repeated(
            session, lambda: read_instance(session, self._hub.hub_id, key, payloads=payloads)), short=True)

    async def rows(self, keys: Sequence[InstanceKey]) -> dict[InstanceKey, InstanceRow]:
        """Return the committed rows of those that exist, in one statement."""
        if not keys:
            return {}
        return await self._database.readers.run(lambda session: repeated(
            session, lambda: read_rows(session, self._hub.hub_id, keys)))

    async def statuses(self, keys: Sequence[InstanceKey]) -> dict[InstanceKey, Status]:
        """Return the committed statuses of those that exist, in one statement."""
        return await self._database.readers.run(lambda session: repeated(
            session, lambda: read_statuses(session, self._hub.hub_id, keys)))

    async def query(self, query: InstanceQuery) -> InstancePage:
        """Return one page by keyset."""
        return await self._database.readers.run(lambda session: repeated(
            session, lambda: read_page(session, self._hub.hub_id, query)))

    async def ended_ids(self, query: EndedQuery) -> EndedPage:
        """Return one page of the ids of ended instances by keyset."""
        return await self._database.readers.run(lambda session: repeated(
            session, lambda: read_ended_page(session, self._hub.hub_id, query)))

    async def children(self, keys: Sequence[InstanceKey]) -> list[InstanceRow]:
        """Return the rows of the sub-orchestrations that these instances started (any execution)."""
        if not keys:
            return []
        return await self._database.readers.run(lambda session: repeated(session, lambda: [
            decode_instance(row) for row in session.ask(READ_CHILDREN, keys, hub=self._hub.hub_id)]))

    async def history(self, key: InstanceKey, execution_id: str) -> AsyncIterator[bytes]:
        """Yield the framed events of one execution, a page of history rows at a time."""
        after = -1
        while True:
            page = partial(read_history, hub_id=self._hub.hub_id, key=key, execution_id=execution_id, after=after)
            events, after = await self._database.readers.run(page)
            if not events:
                return
            yield events
