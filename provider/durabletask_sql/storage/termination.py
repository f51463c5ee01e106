"""Ending instances without a worker: terminating what has not begun, and skipping the graceful way for what has."""

from collections.abc import Sequence
from typing import Any

from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.instances import Sent, Termination
from durabletask_sql.protocol.texts import OUTPUT
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.codec import decode_instance, encode_instance
from durabletask_sql.storage.dialect import Statement
from durabletask_sql.storage.packing import history_row, pack, pack_history, payload_row
from durabletask_sql.storage.session import Session
from durabletask_sql.storage.writes import LOCK_INSTANCES, message_row, queue_message
from durabletask_sql.turn.entity.sections import releases
from durabletask_sql.turn.notices import child_ended_notice
from durabletask_sql.turn.termination import terminated


def terminate(session: Session, hub: TaskHub, termination: Termination) -> Sent:
    """End an instance without committed history at once, else queue the termination (S-416)."""
    found = session.ask(LOCK_INSTANCES, [termination.key], hub=hub.hub_id)
    row = decode_instance(found[0]) if found else None
    if row is None or row.status.is_terminal:
        return Sent()
    if row.history_count:
        queue_message(session, hub.hub_id, termination.message)
        return Sent(woken=frozenset({row.key}))
    return _end(session, hub, [row], termination.output, termination.now)


def terminate_now(session: Session, hub: TaskHub, keys: Sequence[InstanceKey], reason: str | None, now: int) -> Sent:
    """End instances at once, whatever they are doing.

    Those that hold locks of entities, have ended or do not exist stay as they are.
    """
    rows = map(decode_instance, session.ask(LOCK_INSTANCES, keys, hub=hub.hub_id))
    return _end(session, hub, [row for row in rows if not row.status.is_terminal and not _holds_locks(row)], reason, now)


def _holds_locks(row: InstanceRow) -> bool:
    return any(section.granted for section in row.sections)


def _end(session: Session, hub: TaskHub, rows: Sequence[InstanceRow], reason: str | None, now: int) -> Sent:
    """Write the end of these instances, whose rows are locked, and tell their parents."""
    ended = [terminated(row, reason, now) for row in rows]
    keys, output = [row.key for row in rows], None if reason is None else reason.encode()
    notices = [child_ended_notice(row, reason, now, hub.partition_count) for row, _ in ended]
    told = [notice for notice in notices if notice is not None and notice.key not in keys]
    told += [message for row in rows for message in releases(row.sections, row, now, hub.partition_count)]
    histories = [(row, gained, pack_history(gained, output)) for row, gained in ended if gained is not None]
    payloads = [payload_row(row, payload_id, text) for row, _, packed in histories
                for payload_id, text in packed.texts.items()]
    if output is not None:
        text = pack(output)
        payloads += [payload_row(row, OUTPUT, text) for row in rows]

    def send(statement: Statement, batch: Sequence[tuple[Any, ...]]) -> None:
        if batch:
            session.send(statement, batch, hub=hub.hub_id)

    send(sql.UPDATE_INSTANCES, [encode_instance(row) for row, _ in ended])
    send(sql.SWEEP_UNCLAIMED, keys)
    send(sql.SWEEP_MESSAGES, keys)
    send(sql.INSERT_MESSAGES, [message_row(notice) for notice in told])
    send(sql.SWEEP_TIMERS, keys)
    send(sql.INSERT_HISTORY, [history_row(row.key, gained, packed) for row, gained, packed in histories])
    send(sql.INSERT_PAYLOADS, payloads)
    return Sent(frozenset(notice.key for notice in told), frozenset(keys))
