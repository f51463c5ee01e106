"""What a worker answers, and what it was sent, in short words."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import iter_events

COMPLETED, FAILED, TERMINATED = (pb.ORCHESTRATION_STATUS_COMPLETED, pb.ORCHESTRATION_STATUS_FAILED,
                                 pb.ORCHESTRATION_STATUS_TERMINATED)


def text(value):
    return None if value is None else {"value": value}


def end(status=COMPLETED, result=None, number=99, failure=None):
    done = pb.CompleteOrchestrationAction(orchestrationStatus=status, result=text(result), failureDetails=failure)
    return pb.OrchestratorAction(id=number, completeOrchestration=done)


def again(new_input=None, *carried, version=None, number=99):
    """Continue as new, with events carried over."""
    return pb.OrchestratorAction(id=number, completeOrchestration=pb.CompleteOrchestrationAction(
        orchestrationStatus=pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW, result=text(new_input), newVersion=text(version),
        carryoverEvents=carried))


def child(instance_id, name="child", number=0, **parts):
    return pb.OrchestratorAction(id=number, createSubOrchestration=pb.CreateSubOrchestrationAction(
        instanceId=instance_id, name=name, **parts))


def timer(number, fire_at):
    return pb.OrchestratorAction(id=number, createTimer=pb.CreateTimerAction(fireAt=fire_at))


def send(number, target, name, data=None):
    return pb.OrchestratorAction(id=number, sendEvent=pb.SendEventAction(
        instance=pb.OrchestrationInstance(instanceId=target), name=name, data=text(data)))


def raised(name, data=None):
    """An event as SDKs make it for a carry-over: without a time."""
    return pb.HistoryEvent(eventId=-1, timestamp=Timestamp(), eventRaised=pb.EventRaisedEvent(name=name, input=text(data)))


def soon(seconds=0.0):
    stamp = Timestamp()
    stamp.FromMicroseconds(int((datetime.now(UTC).timestamp() + seconds) * 1_000_000))
    return stamp


def new(item):
    """The new events of a turn."""
    return list(iter_events(item.new_events))


def past(item):
    return [event for part in item.past for event in iter_events(part)]


def kinds(events):
    return [event.WhichOneof("eventType") for event in events]


def names(events):
    """The names of the raised events among these."""
    return [event.eventRaised.name for event in events if event.HasField("eventRaised")]


def start_of(item):
    """The ExecutionStarted of a turn, wherever it is."""
    return next(event.executionStarted for event in (*past(item), *new(item)) if event.HasField("executionStarted"))


async def claimed(bench, instance_id, count):
    """Wait until so many messages of an instance are in its owner's memory: an acknowledged one is claimed a moment later."""
    memory = bench.runtime.dispatcher._memory
    await bench.until(lambda: (mem := memory.find(bench.service._key(instance_id))) is not None and len(mem.rows) == count)
