"""Reads of instances: one, many by a filter, children, histories. On the reader lane, never longer than a page."""

import base64
import binascii
import json
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Select, and_, or_, select, tuple_

from durabletask_sql.errors import InvalidArgumentError
from durabletask_sql.model.instances import InstanceKey, InstanceRow, InstanceState
from durabletask_sql.model.queries import EndedPage, EndedQuery, InstancePage, InstanceQuery
from durabletask_sql.model.status import TERMINAL, Status
from durabletask_sql.protocol.texts import INPUT, OUTPUT
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.codec import COLUMNS, decode_instance
from durabletask_sql.storage.dialect import Statement, hub_of
from durabletask_sql.storage.packing import unpack
from durabletask_sql.storage.session import Session
from durabletask_sql.storage.tables import instances, payloads

_LAST_CODE_POINT = 0x10FFFF
_NO_TIME = 1 << 62
_SURROGATES = range(0xD800, 0xE000)

READ_INSTANCES = sql.FRESH_INSTANCES

READ_STATUSES = Statement("instances", lambda v: (
    select(instances.c.partition, instances.c.instance_id, instances.c.status)
    .select_from(v.join(instances, sql.by_key(instances, v)))), sql.KEYS)

READ_PAYLOADS = Statement("payloads", lambda v: (
    select(payloads.c.partition, payloads.c.instance_id, payloads.c.payload_id, payloads.c.content,
           payloads.c.unpacked_size)
    .select_from(v.join(payloads, and_(
        payloads.c.hub_id == hub_of(v), payloads.c.partition == v.c.partition,
        payloads.c.instance_id == v.c.instance_id, payloads.c.execution_id == v.c.execution_id,
        payloads.c.payload_id <= OUTPUT)))), sql.EXECUTIONS)

READ_CHILDREN = Statement("instances", lambda v: (
    select(*COLUMNS).select_from(v.join(instances, and_(
        instances.c.hub_id == hub_of(v), instances.c.parent_instance_id == v.c.instance_id)))), sql.KEYS)


def read_states(session: Session, hub_id: int, rows: Sequence[InstanceRow], *, payloads: bool
                ) -> tuple[InstanceState, ...]:
    """Add inputs and outputs to rows, when they are asked for."""
    texts: dict[tuple[int, str, int], str] = {}
    if payloads and rows:
        found = session.ask(READ_PAYLOADS, [(*row.key, row.execution_id) for row in rows], hub=hub_id)
        texts = {(partition, instance_id, which): unpack(content, size).decode()
                 for partition, instance_id, which, content, size in found}
    return tuple(InstanceState(row, texts.get((*row.key, INPUT)), texts.get((*row.key, OUTPUT))) for row in rows)


def read_instance(session: Session, hub_id: int, key: InstanceKey, *, payloads: bool) -> InstanceState | None:
    """Return the committed state of one instance."""
    rows = [decode_instance(row) for row in session.ask(READ_INSTANCES, [key], hub=hub_id)]
    return next(iter(read_states(session, hub_id, rows, payloads=payloads)), None)


def read_rows(session: Session, hub_id: int, keys: Sequence[InstanceKey]) -> dict[InstanceKey, InstanceRow]:
    """Return the committed rows of those that exist."""
    return {row.key: row for row in map(decode_instance, session.ask(READ_INSTANCES, keys, hub=hub_id))}


def read_statuses(session: Session, hub_id: int, keys: Sequence[InstanceKey]) -> dict[InstanceKey, Status]:
    """Return the committed statuses of those that exist."""
    if not keys:
        return {}
    rows = session.ask(READ_STATUSES, keys, hub=hub_id)
    return {InstanceKey(partition, instance_id): Status(status) for partition, instance_id, status in rows}


def read_page(session: Session, hub_id: int, query: InstanceQuery) -> InstancePage:
    """Return one page in order of (created_at, instance_id), and the token of the next."""
    found = session.execute(page_statement(query), {"hub": hub_id}).rows
    rows = [decode_instance(row) for row in found[:query.page_size]]
    following = _token(rows[-1]) if len(found) > query.page_size else None
    return InstancePage(read_states(session, hub_id, rows, payloads=query.payloads), following)


def page_statement(query: InstanceQuery) -> Select[tuple[object, ...]]:
    """Build the statement of a page: one row more than asked, to tell whether there is a next one."""
    conditions: list[ColumnElement[bool]] = [instances.c.hub_id == sql.HUB, _no_entities()]
    if query.statuses:
        conditions.append(or_(*(instances.c.status == int(status) for status in sorted(query.statuses))))
    if query.created_from is not None:
        conditions.append(instances.c.created_at >= query.created_from)
    if query.created_to is not None:
        conditions.append(instances.c.created_at < query.created_to)
    if query.prefix:
        conditions.append(instances.c.instance_id >= query.prefix)
        end = prefix_end(query.prefix)
        if end is not None:
            conditions.append(instances.c.instance_id < end)
    if query.after is not None:
        conditions.append(tuple_(instances.c.created_at, instances.c.instance_id) > tuple_(*_position(query.after)))
    return select(*COLUMNS).where(*conditions).order_by(
        instances.c.created_at, instances.c.instance_id).limit(query.page_size + 1)


def read_ended_page(session: Session, hub_id: int, query: EndedQuery) -> EndedPage:
    """Return one page of ended instances' ids in order of (completed_at, instance_id), and the key of the next."""
    wanted = query.statuses & TERMINAL
    if query.statuses and not wanted:
        return EndedPage((), None)
    found = session.execute(ended_statement(query), {"hub": hub_id}).rows
    page = found[:query.page_size]
    following = f"{page[-1][0]}:{page[-1][1]}" if len(found) > query.page_size else None
    return EndedPage(tuple(instance_id for _, instance_id in page), following)


def ended_statement(query: EndedQuery) -> Select[tuple[object, ...]]:
    """Build the statement of a page of ended instances: only they have a completion time."""
    ended, instance_id = instances.c.completed_at, instances.c.instance_id
    conditions: list[ColumnElement[bool]] = [instances.c.hub_id == sql.HUB, ended.is_not(None), _no_entities()]
    if query.statuses:
        conditions.append(or_(*(instances.c.status == int(status) for status in sorted(query.statuses))))
    if query.completed_from is not None:
        conditions.append(ended >= query.completed_from)
    if query.completed_to is not None:
        conditions.append(ended < query.completed_to)
    if query.after is not None:
        conditions.append(tuple_(ended, instance_id) > tuple_(*_ended_position(query.after)))
    return select(ended, instance_id).where(*conditions).order_by(ended, instance_id).limit(query.page_size + 1)


def _ended_position(key: str) -> tuple[int, str]:
    at, _, instance_id = key.partition(":")
    try:
        return _checked_position(int(at), instance_id)
    except ValueError as error:
        message = f"the last instance key {key!r} is not one that this server gave: begin again without a key"
        raise InvalidArgumentError(message) from error


def _checked_position(at: int, instance_id: str) -> tuple[int, str]:
    """Return the place of an instance in an order. Raises ValueError for one that no database could hold."""
    if not 0 <= at < _NO_TIME or "\0" in instance_id:
        raise ValueError(at)
    instance_id.encode()  # a lone surrogate is no text
    return at, instance_id


def _no_entities() -> ColumnElement[bool]:
    return or_(instances.c.instance_id < "@", instances.c.instance_id >= "A")


def prefix_end(prefix: str) -> str | None:
    """Return the first text after all that begin with `prefix`, in code point order; None when there is none."""
    while prefix:
        last = ord(prefix[-1]) + 1
        if last in _SURROGATES:
            last = _SURROGATES.stop
        if last <= _LAST_CODE_POINT:
            return prefix[:-1] + chr(last)
        prefix = prefix[:-1]
    return None


def _token(row: InstanceRow) -> str:
    return base64.urlsafe_b64encode(json.dumps([row.created_at, row.instance_id]).encode()).decode()


def _position(token: str) -> tuple[int, str]:
    try:
        created_at, instance_id = json.loads(base64.urlsafe_b64decode(token.encode()))
        return _checked_position(int(created_at), str(instance_id))
    except (ValueError, TypeError, binascii.Error) as error:
        message = f"the continuation token {token!r} is not one that this server gave: begin again without a token"
        raise InvalidArgumentError(message) from error
