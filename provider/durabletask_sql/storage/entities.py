"""Clients' writes and reads of entities in SQL: implements `ports.entities.EntityStore` for one hub."""

from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, cast, exists, literal_column, null, select

from durabletask_sql.model.entities import EntityPage, EntityQuery, EntityRow, EntityState
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import NewMessage, NewTimer
from durabletask_sql.model.status import TERMINAL
from durabletask_sql.ports.entities import Cleaned
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.storage import entity_statements as entity_sql
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.database import Database
from durabletask_sql.storage.dialect import BIGINT, BYTES, INTEGER, TEXT, Statement, no_source
from durabletask_sql.storage.pages import prefix_end
from durabletask_sql.storage.session import Session, asked, repeated
from durabletask_sql.storage.tables import control_queue, entities, instances
from durabletask_sql.storage.transactions import transact
from durabletask_sql.storage.writes import queue_message
from durabletask_sql.turn.entity.messages import Release
from durabletask_sql.turn.entity.sections import release_message

_ENDED = sorted(int(status) for status in TERMINAL)
_ONE = literal_column("1", INTEGER)


def _owner_lives() -> ColumnElement[bool]:
    return exists(select(_ONE).select_from(instances).where(
        instances.c.hub_id == entities.c.hub_id, instances.c.instance_id == entities.c.lock_instance_id,
        instances.c.execution_id == entities.c.lock_execution_id,
        *(instances.c.status != number for number in _ENDED)))


FIND_ORPHANS = Statement("entities", no_source(lambda: (
    select(*entity_sql.COLUMNS)
    .where(entities.c.hub_id == sql.HUB, entities.c.instance_id > bindparam("after", type_=TEXT),
           entities.c.lock_instance_id.is_not(None), ~_owner_lives(),
           ~exists(select(_ONE).select_from(control_queue).where(entity_sql.has_release())))
    .order_by(entities.c.instance_id).limit(bindparam("room", type_=BIGINT)))))


class SqlEntities:
    """The clients' side of one hub's entities."""

    def __init__(self, database: Database, hub: TaskHub) -> None:
        """Take the client and reader lanes of this database."""
        self._database = database
        self._hub = hub

    async def signal(self, message: NewMessage | NewTimer) -> None:
        """Queue a signal, delayed or not, for an entity that need not exist."""
        def work(session: Session) -> None:
            if isinstance(message, NewTimer):
                row = (*message.key, message.execution_id, int(message.kind), message.fire_at, 0, message.events)
                session.send(sql.INSERT_TIMERS, [row], hub=self._hub.hub_id)
            else:
                queue_message(session, self._hub.hub_id, message)

        await transact(self._database, work)

    async def get(self, key: InstanceKey) -> EntityState | None:
        """Return the committed row of an entity, if it has one, and its backlog."""
        rows = await self._database.points.run(lambda session: asked(
            session, entity_sql.READ_ENTITIES, [key], hub=self._hub.hub_id), short=True)
        return next((_state(row) for row in rows), None)

    async def query(self, query: EntityQuery) -> EntityPage:
        """Return one page by keyset."""
        return await self._database.readers.run(lambda session: repeated(
            session, lambda: read_page(session, self._hub.hub_id, query)))

    async def purge(self, key: InstanceKey) -> bool:
        """Delete an entity's state; its lock and what waits for it stay. Tell whether there was a state."""
        return await transact(self._database, lambda session: self._purge(session, key))

    def _purge(self, session: Session, key: InstanceKey) -> bool:
        found = session.ask(entity_sql.LOCK_ENTITY, [key], hub=self._hub.hub_id)
        row = entity_sql.decode_entity(found[0]) if found else None
        if row is None or row.state is None:
            return False
        if row.lock is None:
            session.send(entity_sql.DELETE_ENTITIES, [key], hub=self._hub.hub_id)
        else:
            empty = replace(row, state=None, row_version=row.row_version + 1)
            session.send(entity_sql.UPDATE_ENTITIES, [entity_sql.encode_entity(empty)], hub=self._hub.hub_id)
        return True

    async def release_orphans(self, now: int, after: str | None, limit: int) -> Cleaned:
        """Queue a release for locks whose section's execution does not live any more, up to so many of them."""
        def work(session: Session) -> Cleaned:
            found = session.ask(FIND_ORPHANS, hub=self._hub.hub_id, after=after or "", room=limit)
            rows = [entity_sql.decode_entity(row) for row in found]
            for row in rows:
                queue_message(session, self._hub.hub_id, _release(row, now, self._hub.partition_count))
            following = rows[-1].instance_id if len(rows) == limit else None
            return Cleaned(frozenset(row.key for row in rows), following)

        return await transact(self._database, work)


def _release(row: EntityRow, now: int, partition_count: int) -> NewMessage:
    assert row.lock is not None
    return release_message(row.instance_id, Release(row.lock), now, partition_count)


def _state(values: tuple[Any, ...]) -> EntityState:
    return EntityState(entity_sql.decode_entity(values[:-1]), values[-1])


def read_page(session: Session, hub_id: int, query: EntityQuery) -> EntityPage:
    """Return one page in order of id, and the token of the next: the last id."""
    found = [_state(row) for row in session.execute(page_statement(query), {"hub": hub_id}).rows]
    page = tuple(found[:query.page_size])
    return EntityPage(page, page[-1].row.instance_id if len(found) > query.page_size else None)


def page_statement(query: EntityQuery) -> Select[tuple[object, ...]]:
    """Build the statement of a page: one row more than asked, to tell whether there is a next one."""
    conditions: list[ColumnElement[bool]] = [entities.c.hub_id == sql.HUB]
    if query.prefix:
        end = prefix_end(query.prefix)
        conditions.append(entities.c.instance_id >= query.prefix)
        if end is not None:
            conditions.append(entities.c.instance_id < end)
    if query.after is not None:
        conditions.append(entities.c.instance_id > query.after)
    if query.modified_from is not None:
        conditions.append(entities.c.modified_at >= query.modified_from)
    if query.modified_to is not None:
        conditions.append(entities.c.modified_at < query.modified_to)
    if not query.transient:
        conditions.append(entities.c.state.is_not(None))
    columns = [column if query.states or column.name != "state" else cast(null(), BYTES)
               for column in entity_sql.COLUMNS]
    return select(*columns, entity_sql.backlog()).where(and_(*conditions)).order_by(
        entities.c.instance_id).limit(query.page_size + 1)
