"""What the events of a history ask for, and which events answer them: the pairs that a replay goes by."""

from typing import NamedTuple

from google.protobuf.message import DecodeError

from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import event_kind

TASK, TIMER, CHILD, CALL = "activity", "timer", "sub-orchestration", "entity call"

_ASKS = {"taskScheduled": TASK, "timerCreated": TIMER, "subOrchestrationInstanceCreated": CHILD}
_ANSWERS = {
    "taskCompleted": (TASK, "taskScheduledId"),
    "taskFailed": (TASK, "taskScheduledId"),
    "timerFired": (TIMER, "timerId"),
    "subOrchestrationInstanceCompleted": (CHILD, "taskScheduledId"),
    "subOrchestrationInstanceFailed": (CHILD, "taskScheduledId"),
    "entityOperationCompleted": (CALL, "requestId"),
    "entityOperationFailed": (CALL, "requestId"),
}

HEAD_BYTES = 1_024  # what `answer_at_head` needs at most, however large the event's texts are
_MORE, _LOW_BITS = 0x80, 0x7F
_NUMBER, _TEXT = 0x08, 0x0A  # field 1, where answers have the id of what they answer, timers aside
_TIME = 0x12
_BY_NUMBER = {pb.HistoryEvent.DESCRIPTOR.fields_by_name[name].number: need for name, (need, _) in _ANSWERS.items()}


class Need(NamedTuple):
    """Something that an execution waits for: its kind, and the id by which its answer names it."""

    kind: str
    id: int | str


def asked(event: pb.HistoryEvent) -> Need | None:
    """Return what an event asks for."""
    kind = event.WhichOneof("eventType") or ""
    if kind == "entityOperationCalled":
        return Need(CALL, event.entityOperationCalled.requestId)
    return Need(_ASKS[kind], event.eventId) if kind in _ASKS else None


def answered(event: pb.HistoryEvent) -> Need | None:
    """Return what an event answers."""
    kind = event.WhichOneof("eventType") or ""
    if kind not in _ANSWERS:
        return None
    need, name = _ANSWERS[kind]
    return Need(need, getattr(getattr(event, kind), name))


def answer_at_head(head: bytes) -> Need | None:
    """Return what a framed event answers, given its first HEAD_BYTES: large results need not be read for it.

    None for anything else, bytes that are no event included.
    """
    try:
        size, at = _varint(head, 1)
        found = _BY_NUMBER.get(event_kind(head[at:]))
        if found is None or found is TIMER:  # short events, whole
            return None if found is None else answered(pb.HistoryEvent.FromString(head[at:at + size]))
        at = _skip_to_kind(head, at)
        size, at = _varint(head, _varint(head, at)[1])
        if not size:
            return Need(found, 0)
        if head[at] == _NUMBER:
            return Need(found, _varint(head, at + 1)[0])
        if head[at] == _TEXT:
            size, at = _varint(head, at + 1)
            return Need(found, head[at:at + size].decode())
    except (IndexError, UnicodeDecodeError, DecodeError):
        return None
    return Need(found, 0)  # a number that is 0 is left out


def _skip_to_kind(head: bytes, at: int) -> int:
    """Return where the field begins that says the event's kind: behind its id and its time."""
    if head[at] == _NUMBER:
        at = _varint(head, at + 1)[1]
    if head[at] == _TIME:
        at += 2 + head[at + 1]
    return at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    value = shift = 0
    while data[at] & _MORE:
        value |= (data[at] & _LOW_BITS) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1
