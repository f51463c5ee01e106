"""Ending instances without a worker: terminating what has not begun, and skipping the graceful way for what has."""

from collections.abc import Sequence
from typing import Any

from durabletask_sql.model.checkpoints import HistoryAppend
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.status import Status
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

Ending = tuple[InstanceRow, InstanceRow, HistoryAppend | None]


def terminate(session: Session, hub: TaskHub, termination: Termination) -> Sent:
    """End an instance without committed history at once, else queue the termination (S-416)."""
    found = session.ask(LOCK_INSTANCES, [termination.key], hub=hub.hub_id)
    row = decode_instance(found[0]) if found else None
    if row is None or row.status.is_terminal:
        return Sent()
    if row.history_count:
        queue_message(session, hub.hub_id, termination.message)
        return Sent(woken=frozenset({row.key}))
    return _terminate(session, hub, [row], termination.output, termination.now)


def terminate_now(session: Session, hub: TaskHub, keys: Sequence[InstanceKey], reason: str | None, now: int) -> Sent:
    """End instances at once, whatever they are doing.

    Those that hold locks of entities, have ended or do not exist stay as they are.
    """
    rows = map(decode_instance, session.ask(LOCK_INSTANCES, keys, hub=hub.hub_id))
    return _terminate(session, hub, [row for row in rows if not row.status.is_terminal and not _holds_locks(row)], reason,
                      now)


def _holds_locks(row: InstanceRow) -> bool:
    return any(section.granted for section in row.sections)


def _terminate(session: Session, hub: TaskHub, rows: Sequence[InstanceRow], reason: str | None, now: int) -> Sent:
    return end(session, hub, [(row, *terminated(row, reason, now)) for row in rows], reason, now)


def end(session: Session, hub: TaskHub, endings: Sequence[Ending], output: str | None, now: int
        ) -> Sent:
    """Write the end of instances, whose rows are locked, and tell their parents.

    Each comes with its row before and after, and with what its history gains. Unclaimed activity tasks go with those
    that are terminated.
    """
    keys, text = [row.key for row, _, _ in endings], None if output is None else output.encode()
    notices = [child_ended_notice(row, output, now, hub.partition_count) for _, row, _ in endings]
    told = [notice for notice in notices if notice is not None and notice.key not in keys]
    told += [message for row, _, _ in endings for message in releases(row.sections, row, now, hub.partition_count)]
    histories = [(row, gained, pack_history(gained, text)) for row, _, gained in endings if gained is not None]
    payloads = [payload_row(row, payload_id, part) for row, _, packed in histories
                for payload_id, part in packed.texts.items()]
    if text is not None:
        shared = pack(text)
        payloads += [payload_row(row, OUTPUT, shared) for row, _, _ in endings]

    def send(statement: Statement, batch: Sequence[tuple[Any, ...]]) -> None:
        if batch:
            session.send(statement, batch, hub=hub.hub_id)

    send(sql.UPDATE_INSTANCES, [encode_instance(row) for _, row, _ in endings])
    send(sql.SWEEP_UNCLAIMED, [row.key for _, row, _ in endings if row.status is Status.TERMINATED])
    send(sql.SWEEP_MESSAGES, keys)
    send(sql.INSERT_MESSAGES, [message_row(notice) for notice in told])
    send(sql.SWEEP_TIMERS, keys)
    send(sql.INSERT_HISTORY, [history_row(row.key, gained, packed) for row, gained, packed in histories])
    send(sql.INSERT_PAYLOADS, payloads)
    return Sent(frozenset(notice.key for notice in told), frozenset(keys))
