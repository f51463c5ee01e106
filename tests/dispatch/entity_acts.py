"""What is done to entities, and what their batches hold, in short words."""

from __future__ import annotations

from dispatch.bench import Bench
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import iter_events
from durabletask_sql.service.abstraction import Signal
from entity_rows import guid

A, B = "@counter@a", "@counter@b"


async def signal(bench: Bench, entity_id: str = A, operation: str = "add", text: str | None = None) -> None:
    await bench.entities.signal(Signal(entity_id, operation, text))


def operations(item):
    found = []
    for event in iter_events(item.operations):
        kind = event.WhichOneof("eventType")
        found.append(getattr(event, kind).operation)
    return found


async def state(bench: Bench, entity_id: str = A):
    found = await bench.entities.get(entity_id)
    return None if found is None else found.row.state


def call(number, entity_id=A, operation="get", text=None):
    return pb.OrchestratorAction(id=number, sendEntityMessage=pb.SendEntityMessageAction(
        entityOperationCalled=pb.EntityOperationCalledEvent(
            requestId=guid(number), operation=operation, targetInstanceId=events.text(entity_id),
            input=events.text(text))))


def lock(number, *entity_ids, section="section"):
    return pb.OrchestratorAction(id=number, sendEntityMessage=pb.SendEntityMessageAction(
        entityLockRequested=pb.EntityLockRequestedEvent(criticalSectionId=section, lockSet=entity_ids)))


def unlock(number, entity_id, section="section"):
    return pb.OrchestratorAction(id=number, sendEntityMessage=pb.SendEntityMessageAction(
        entityUnlockSent=pb.EntityUnlockSentEvent(criticalSectionId=section, targetInstanceId=events.text(entity_id))))
