"""Creating an instance: dedupe check, row, start message and optional event in one transaction (S-413)."""

from dataclasses import replace

from durabletask_sql.model.creation import Decision
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.payloads import Packed
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.instances import Created, Creation
from durabletask_sql.protocol.texts import INPUT
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.codec import decode_instance, encode_instance
from durabletask_sql.storage.packing import payload_row
from durabletask_sql.storage.session import Session
from durabletask_sql.storage.writes import LOCK_INSTANCES, queue_message, sweep
from durabletask_sql.turn.entity.sections import releases
from durabletask_sql.turn.notices import child_replaced_notice


def create(session: Session, hub: TaskHub, creation: Creation, packed_input: Packed | None) -> Created:
    """Create, replace, keep or refuse, as the policy says of what is there. Leaves the transaction to be committed.

    `packed_input` is the creation's input as it is stored: it was packed before the transaction.
    Raises ShortWriteError when another session created the id meanwhile: the caller rolls back and asks again.
    """
    row = creation.row
    found = session.ask(LOCK_INSTANCES, [row.key], hub=hub.hub_id)
    old = decode_instance(found[0]) if found else None
    if old is not None and old.execution_id == row.execution_id:
        return Created(Decision.CREATE, woken=frozenset((row.key,)))  # by a commit whose outcome was not known
    decision = creation.policy.decide(old.status if old is not None else None)
    if decision not in (Decision.CREATE, Decision.REPLACE):
        return Created(decision, old.status if old is not None else None)
    woken = {row.key}
    if old is None:
        session.send(sql.INSERT_INSTANCES, [encode_instance(replace(row, generation=0, row_version=1))],
                     hub=hub.hub_id)
    else:
        row = replace(row, generation=old.generation + 1, row_version=old.row_version + 1)
        session.send(sql.UPDATE_INSTANCES, [encode_instance(row)], hub=hub.hub_id)
        sweep(session, hub.hub_id, [old.key])
        woken |= _tell_parent(session, hub, old, row.created_at)
        for message in releases(old.sections, old, row.created_at, hub.partition_count):
            queue_message(session, hub.hub_id, message)  # what the old execution holds or asks for goes with it (S-344)
            woken.add(message.key)
    _start(session, hub, creation, packed_input)
    return Created(decision, old.status if old is not None else None, frozenset(woken))


def _tell_parent(session: Session, hub: TaskHub, old: InstanceRow, now: int) -> set[InstanceKey]:
    """A live sub-orchestration that is replaced fails for the parent that waits for it (S-414)."""
    notice = None if old.status.is_terminal else child_replaced_notice(old, now, hub.partition_count)
    if notice is None or notice.key == old.key:
        return set()
    queue_message(session, hub.hub_id, notice)
    return {notice.key}


def _start(session: Session, hub: TaskHub, creation: Creation, packed_input: Packed | None) -> None:
    row, start = creation.row, creation.start
    if row.scheduled_at is None:
        queue_message(session, hub.hub_id, start)
    else:
        session.send(sql.INSERT_TIMERS, [(*row.key, row.execution_id, int(start.kind), row.scheduled_at, 0,
                                          start.events)], hub=hub.hub_id)
    if creation.event is not None:
        queue_message(session, hub.hub_id, creation.event)
    if packed_input is not None:
        session.send(sql.INSERT_PAYLOADS, [payload_row(row, INPUT, packed_input)], hub=hub.hub_id)
