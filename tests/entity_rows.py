"""Short ways to write what stands in an entity's queue."""

from __future__ import annotations

import json

from durabletask_sql.ids import partition_of
from durabletask_sql.model.entities import EntityRow, LockOwner
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import MessageKind, QueueRow, TimerRow
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame
from durabletask_sql.turn.entity.messages import LockRequest, Release, write_lock_request, write_release

NOW = 1_000_000
PARTITIONS = 4
ANN = LockOwner("ann", "ann-1", "section-a")
BOB = LockOwner("bob", "bob-1", "section-b")


def guid(number):
    return f"00000000-0000-0000-0000-{number:012d}"


def key(instance_id):
    return InstanceKey(partition_of(instance_id, PARTITIONS), instance_id)


E = key("@counter@e")


def entity(state="1", lock=None, version=3, at=E):
    return EntityRow(*at, version, state, NOW, lock)


def row(seq, events_, *, kind=MessageKind.EVENT, sender=None, at=E):
    return QueueRow(seq, at, sender, kind, events_)


def signal_event(number, operation="add"):
    return frame(events.entity_signaled(NOW, events.INPUT, pb.EntityOperationSignaledEvent(
        requestId=guid(number), operation=operation)))


def signal(seq, operation="add"):
    return row(seq, signal_event(seq, operation))


def call(seq, owner=ANN, *, ahead=False):
    event = events.entity_called(NOW, events.INPUT, pb.EntityOperationCalledEvent(
        requestId=guid(seq), operation="get", parentInstanceId=events.text(owner.instance_id),
        parentExecutionId=events.text(owner.execution_id)))
    return row(seq, frame(event), kind=MessageKind.AHEAD if ahead else MessageKind.EVENT, sender=owner.execution_id)


def lock(seq, owner=ANN, lock_set=(E.instance_id,), position=0):
    return row(seq, write_lock_request(LockRequest(owner, lock_set, position), NOW), sender=owner.execution_id)


def release(seq, owner=ANN, lock_set=(), position=0):
    body = write_release(Release(owner, lock_set, position), E.instance_id, NOW)
    return row(seq, body, kind=MessageKind.AHEAD, sender=owner.execution_id)


def legacy(seq, name="op", execution="ann-1", **data):
    """A request in the older form."""
    return row(seq, frame(events.event_raised(NOW, name, json.dumps(data))), sender=execution)


def delayed(seq, fire_at):
    return TimerRow(seq, E, "", MessageKind.EVENT, fire_at, signal_event(seq))
