"""The statements of pages of instances, by keyset. Each reads an index in its order and stops after a page.

An index by status and time is in order of time only beside one status, so each status has a part of its own, and the parts
are merged. A prefix is read in order of ids; conditions that its index does not know are looked up in a stretch of bounded
length, so that a page may come short, or empty, although there is a next one.
"""

import base64
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, and_, or_, select, tuple_, union_all

from durabletask_sql.errors import InvalidArgumentError
from durabletask_sql.model.instances import InstanceRow
from durabletask_sql.model.queries import EndedQuery, InstanceQuery
from durabletask_sql.model.status import TERMINAL, Status
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.codec import COLUMNS
from durabletask_sql.storage.tables import instances

STRETCH = 2_000
_LAST_CODE_POINT = 0x10FFFF
_NO_TIME = _NO_LIMIT = 1 << 62
_SURROGATES = range(0xD800, 0xE000)

Page = Select[Any]


def page_statement(query: InstanceQuery, stretch_end: str | None = None) -> Page:
    """Build the statement of a page: one row more than asked, to tell whether there is a next one.

    In order of (created_at, instance_id), or of instance_id if there is a prefix.
    """
    if query.prefix:
        return _prefix_page(query, stretch_end)
    after = None if query.after is None else _position(query.after)
    order = (instances.c.created_at, instances.c.instance_id)
    conditions = [*_of_hub(), *_within(order, query.created_from, query.created_to, after)]
    return _merged(COLUMNS, conditions, query.statuses, order, query.page_size + 1)


def _of_hub() -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the conditions that every page has: its hub, and no entity."""
    instance_id = instances.c.instance_id
    return instances.c.hub_id == sql.HUB, or_(instance_id < "@", instance_id >= "A")


def _within(order: tuple[ColumnElement[int], ColumnElement[str]], since: int | None, until: int | None,
            after: tuple[int, str] | None) -> list[ColumnElement[bool]]:
    """Return the conditions on a time. Only the higher of two lower bounds is one: an index begins at either."""
    found: list[ColumnElement[bool]] = []
    if after is not None and (since is None or after[0] >= since):
        found.append(tuple_(*order) > tuple_(*after))
    elif since is not None:
        found.append(order[0] >= since)
    if until is not None:
        found.append(order[0] < until)
    return found


def _merged(columns: Sequence[Column[Any]], conditions: Sequence[ColumnElement[bool]], statuses: frozenset[Status],
            order: tuple[Column[Any], ...], limit: int) -> Page:
    """Return the first rows in this order of those with one of these statuses (none: of any)."""
    if not statuses:
        return select(*columns).where(*conditions).order_by(*order).limit(limit)
    parts = [select(*columns).where(*conditions, instances.c.status == int(status)).order_by(*order).limit(limit)
             for status in sorted(statuses)]
    if len(parts) == 1:
        return parts[0]
    rows = union_all(*(select(part.subquery()) for part in parts)).subquery()
    return select(rows).order_by(*(rows.c[column.name] for column in order)).limit(limit)


# Prefixes


def needs_stretch(query: InstanceQuery) -> bool:
    """Tell whether a page has conditions that the index which it reads does not know."""
    return bool(query.prefix) and (bool(query.statuses) or (query.created_from, query.created_to) != (None, None))


def stretch_statement(query: InstanceQuery) -> Page:
    """Build what finds the last id of the stretch that a page looks at; no row: it reaches to the prefix's end."""
    return select(instances.c.instance_id).where(_in_prefix(query)).order_by(instances.c.instance_id).offset(
        STRETCH - 1).limit(1)


def _in_prefix(query: InstanceQuery, last: str | None = None) -> ColumnElement[bool]:
    """Return the condition on ids: behind the page before, up to `last` or to the prefix's end."""
    instance_id, end = instances.c.instance_id, prefix_end(query.prefix)
    conditions = [*_of_hub(), instance_id >= query.prefix if query.after is None else (
        instance_id > max(_id_position(query.after), query.prefix))]
    if last is not None:
        conditions.append(instance_id <= last)
    elif end is not None:
        conditions.append(instance_id < end)
    return and_(*conditions)


def _prefix_page(query: InstanceQuery, stretch_end: str | None) -> Page:
    if not needs_stretch(query):
        return select(*COLUMNS).where(_in_prefix(query)).order_by(instances.c.instance_id).limit(query.page_size + 1)
    here = select(instances.c.partition, instances.c.instance_id, instances.c.status, instances.c.created_at).where(
        _in_prefix(query, stretch_end))
    # A limit, however high, keeps the planner from reading anything else than the ids.
    rows = here.order_by(instances.c.instance_id).limit(_NO_LIMIT).subquery()
    conditions = _within((rows.c.created_at, rows.c.instance_id), query.created_from, query.created_to, None)
    if query.statuses:
        conditions.append(or_(*(rows.c.status == int(status) for status in sorted(query.statuses))))
    matching = select(rows.c.partition, rows.c.instance_id).where(*conditions).order_by(rows.c.instance_id).limit(
        query.page_size + 1).subquery()
    return select(*COLUMNS).select_from(matching.join(instances, and_(
        instances.c.hub_id == sql.HUB, instances.c.partition == matching.c.partition,
        instances.c.instance_id == matching.c.instance_id))).order_by(matching.c.instance_id)


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


# Ended instances


def ended_statement(query: EndedQuery) -> Page:
    """Build the statement of a page of ended instances, in order of (completed_at, instance_id)."""
    after = None if query.after is None else _ended_position(query.after)
    order = (instances.c.completed_at, instances.c.instance_id)
    conditions = [*_of_hub(), order[0].is_not(None), *_within(order, query.completed_from, query.completed_to, after)]
    return _merged(order, conditions, query.statuses & TERMINAL or TERMINAL, order, query.page_size + 1)


# Where a page ends


def token_of(query: InstanceQuery, row: InstanceRow) -> str:
    """Return the token of the page behind a row."""
    return _token(row.instance_id) if query.prefix else _token(row.created_at, row.instance_id)


def stretch_token(instance_id: str) -> str:
    """Return the token of the page behind a stretch."""
    return _token(instance_id)


def _token(*place: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _position(token: str) -> tuple[int, str]:
    created_at, instance_id = _parts(token, 2)
    try:
        return _checked(int(created_at), str(instance_id))
    except (ValueError, TypeError, OverflowError) as error:
        raise _unknown(token) from error


def _id_position(token: str) -> str:
    try:
        return _checked(0, str(*_parts(token, 1)))[1]
    except ValueError as error:
        raise _unknown(token) from error


def _parts(token: str, count: int) -> list[Any]:
    """Return the parts of a token; `Infinity` and lists inside lists are among what JSON knows."""
    try:
        parts = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, RecursionError) as error:
        raise _unknown(token) from error
    if not isinstance(parts, list) or len(parts) != count:
        raise _unknown(token)
    return parts


def _unknown(token: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"the continuation token {token!r} is not one that this server gave for such a query: "
                                "begin again without a token")


def _ended_position(key: str) -> tuple[int, str]:
    at, _, instance_id = key.partition(":")
    try:
        return _checked(int(at), instance_id)
    except ValueError as error:
        message = f"the last instance key {key!r} is not one that this server gave: begin again without a key"
        raise InvalidArgumentError(message) from error


def _checked(at: int, instance_id: str) -> tuple[int, str]:
    """Return the place of an instance in an order. Raises ValueError for one that no database could hold."""
    if not 0 <= at < _NO_TIME or "\0" in instance_id:
        raise ValueError(at)
    instance_id.encode()  # a lone surrogate is no text
    return at, instance_id
