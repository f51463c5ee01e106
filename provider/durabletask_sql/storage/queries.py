"""Reads of instances: one, many by a filter, children, histories. On the reader lane, never longer than a page."""

from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.sql.selectable import FromClause

from durabletask_sql.model.instances import InstanceKey, InstanceRow, InstanceState
from durabletask_sql.model.queries import EndedPage, EndedQuery, InstancePage, InstanceQuery
from durabletask_sql.model.status import TERMINAL, Status
from durabletask_sql.protocol.texts import INPUT, OUTPUT
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.codec import COLUMNS, decode_instance
from durabletask_sql.storage.dialect import Statement, hub_of
from durabletask_sql.storage.packing import unpack
from durabletask_sql.storage.pages import (
    ended_statement,
    needs_stretch,
    page_statement,
    stretch_statement,
    stretch_token,
    token_of,
)
from durabletask_sql.storage.session import Session
from durabletask_sql.storage.tables import instances, payloads
from durabletask_sql.storage.yielding import off_loop

_PAGE_BYTES = 3 * 1024 * 1024  # gRPC clients read 4 MiB in one message unless told otherwise
_FIXED_BYTES = 200
_LONGEST_CHARACTER = 4

READ_INSTANCES = sql.FRESH_INSTANCES

READ_STATUSES = Statement("instances", lambda v: (
    select(instances.c.partition, instances.c.instance_id, instances.c.status)
    .select_from(v.join(instances, sql.by_key(instances, v)))), sql.KEYS)

def _own_payloads(v: FromClause) -> ColumnElement[bool]:
    return and_(sql.by_key(payloads, v), payloads.c.execution_id == v.c.execution_id, payloads.c.payload_id <= OUTPUT)


READ_PAYLOADS = Statement("payloads", lambda v: (
    select(payloads.c.partition, payloads.c.instance_id, payloads.c.payload_id, payloads.c.content,
           payloads.c.unpacked_size).select_from(v.join(payloads, _own_payloads(v)))), sql.EXECUTIONS)

READ_PAYLOAD_SIZES = Statement("payloads", lambda v: (
    select(payloads.c.partition, payloads.c.instance_id,
           func.sum(func.coalesce(payloads.c.unpacked_size, func.length(payloads.c.content))))
    .select_from(v.join(payloads, _own_payloads(v)))
    .group_by(payloads.c.partition, payloads.c.instance_id)), sql.EXECUTIONS)

READ_CHILDREN = Statement("instances", lambda v: (
    select(*COLUMNS).select_from(v.join(instances, and_(
        instances.c.hub_id == hub_of(v), instances.c.parent_instance_id == v.c.instance_id)))), sql.KEYS)


def read_states(session: Session, hub_id: int, rows: Sequence[InstanceRow], *, payloads: bool
                ) -> tuple[InstanceState, ...]:
    """Add inputs and outputs to rows, when they are asked for."""
    texts: dict[tuple[int, str, int], str] = {}
    if payloads and rows:
        found = session.ask(READ_PAYLOADS, [(*row.key, row.execution_id) for row in rows], hub=hub_id)
        texts = {(partition, instance_id, which): _text(content, size)
                 for partition, instance_id, which, content, size in found}
    return tuple(InstanceState(row, texts.get((*row.key, INPUT)), texts.get((*row.key, OUTPUT))) for row in rows)


def _text(content: bytes, unpacked_size: int | None) -> str:
    """Return a text that was packed; large ones keep the event loop for milliseconds, if this runs there."""
    if unpacked_size is None:
        return content.decode()
    return off_loop(lambda: unpack(content, unpacked_size).decode())


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
    """Return one page, and the token of the next: what clients can read in one message, at least one instance."""
    end = None
    if needs_stretch(query):
        found = session.execute(stretch_statement(query), {"hub": hub_id}).rows
        end = found[0][0] if found else None
    found = session.execute(page_statement(query, end), {"hub": hub_id}).rows
    rows = [decode_instance(row) for row in found[:query.page_size]]
    kept = rows[:_count_fitting(rows, _payload_sizes(session, hub_id, rows) if query.payloads else {})]
    following = stretch_token(end) if end is not None else None
    if len(kept) < len(found):
        following = token_of(query, kept[-1])
    return InstancePage(read_states(session, hub_id, kept, payloads=query.payloads), following)


def _payload_sizes(session: Session, hub_id: int, rows: Sequence[InstanceRow]) -> dict[InstanceKey, int]:
    if not rows:
        return {}
    found = session.ask(READ_PAYLOAD_SIZES, [(*row.key, row.execution_id) for row in rows], hub=hub_id)
    return {InstanceKey(partition, instance_id): size for partition, instance_id, size in found}


def _count_fitting(rows: Sequence[InstanceRow], payload_sizes: Mapping[InstanceKey, int]) -> int:
    """Return how many of these instances, from the first on, fit into an answer; one always does."""
    size = 0
    for count, row in enumerate(rows):
        size += payload_sizes.get(row.key, 0) + _row_size(row)
        if count and size > _PAGE_BYTES:
            return count
    return len(rows)


def _row_size(row: InstanceRow) -> int:
    tags = sum(len(name) + len(value) for name, value in row.tags.items())
    texts = tags + len(row.custom_status or "") + len(row.instance_id) + len(row.name)
    return _LONGEST_CHARACTER * texts + len(row.failure or b"") + _FIXED_BYTES


def read_ended_page(session: Session, hub_id: int, query: EndedQuery) -> EndedPage:
    """Return one page of ended instances' ids in order of (completed_at, instance_id), and the key of the next."""
    if query.statuses and not query.statuses & TERMINAL:
        return EndedPage((), None)
    found = session.execute(ended_statement(query), {"hub": hub_id}).rows
    page = found[:query.page_size]
    following = f"{page[-1][0]}:{page[-1][1]}" if len(found) > query.page_size else None
    return EndedPage(tuple(instance_id for _, instance_id in page), following)
