"""Histories read with the texts that were taken out of them."""

from collections.abc import Sequence
from functools import partial

from sqlalchemy import ColumnElement, and_, bindparam, func, select

from durabletask_sql.errors import NotFoundError
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.protocol.texts import put_back, read_refs
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.dialect import BIGINT, INTEGER, TEXT, Statement, no_source
from durabletask_sql.storage.packing import unpack
from durabletask_sql.storage.session import Session, asked
from durabletask_sql.storage.tables import history

_PAGE_ROWS = 200
_PAGE_BYTES = 1024 * 1024

Part = tuple[bytes, bytes | None]  # the events of a row of history, and its refs


def _behind() -> ColumnElement[bool]:
    return and_(history.c.hub_id == sql.HUB, history.c.partition == bindparam("partition", type_=INTEGER),
                history.c.instance_id == bindparam("instance_id", type_=TEXT),
                history.c.execution_id == bindparam("execution_id", type_=TEXT),
                history.c.first_sequence > bindparam("after", type_=BIGINT))


READ_SIZES = Statement("history", no_source(lambda: (
    select(history.c.first_sequence, func.length(history.c.events), history.c.refs).where(_behind())
    .order_by(history.c.first_sequence).limit(_PAGE_ROWS))))

READ_HISTORY = Statement("history", no_source(lambda: (
    select(history.c.events, history.c.refs)
    .where(_behind(), history.c.first_sequence <= bindparam("last", type_=BIGINT)).order_by(history.c.first_sequence))))


def read_history(session: Session, *, hub_id: int, key: InstanceKey, execution_id: str, after: int
                 ) -> tuple[bytes, int]:
    """Return a page of an execution's history behind a row's first sequence, and the last row's; b"" at its end.

    A page has about 1 MiB, more only if a row alone has. Raises NotFoundError when the execution went meanwhile.
    """
    read = partial(asked, session, hub=hub_id, partition=key.partition, instance_id=key.instance_id,
                   execution_id=execution_id, after=after)
    last, size, count = after, 0, 0
    for first_sequence, length, refs in read(READ_SIZES):
        size += length + text_bytes(refs)
        if count and size > _PAGE_BYTES:
            break
        last, count = first_sequence, count + 1
    if not count:
        return b"", after
    parts = read(READ_HISTORY, last=last)
    whole = fill(session, hub_id, key, execution_id, parts) if len(parts) == count else None
    if whole is None:
        message = f"the execution {execution_id} of instance '{key.instance_id}' was deleted while its history was read"
        raise NotFoundError(message)
    return b"".join(whole), last


def text_bytes(refs: bytes | None) -> int:
    """Return how many bytes of text were taken out of a row of history."""
    return 0 if refs is None else sum(ref.size for ref in read_refs(refs))


def fill(session: Session, hub_id: int, key: InstanceKey, execution_id: str, parts: Sequence[Part]
         ) -> list[bytes] | None:
    """Return rows of an execution's history with their texts put back; None when a text is not there any more."""
    wanted = sorted({ref.payload_id for _, refs in parts if refs is not None for ref in read_refs(refs)})
    if not wanted:
        return [events for events, _ in parts]
    rows = asked(session, sql.READ_TEXTS, [(*key, execution_id, payload_id) for payload_id in wanted], hub=hub_id)
    if len(rows) < len(wanted):
        return None
    texts = {payload_id: unpack(content, size) for payload_id, content, size in rows}
    return [events if refs is None else put_back(events, refs, texts) for events, refs in parts]
