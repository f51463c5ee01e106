"""Is a task hub legal? Checks stored histories and leftovers after everything came to rest (I1, I4, I6).

Reads the tables directly and trusts nothing that the server says.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import iter_events
from durabletask_sql.protocol.texts import put_back
from entity_checker import read_entities
from tables import rows

ENDED = (1, 3, 4, 5)

# What a result's event answers: the kind of the scheduling event, and where the result names its id.
_ANSWERS = {
    "taskCompleted": ("taskScheduled", "taskScheduledId"),
    "taskFailed": ("taskScheduled", "taskScheduledId"),
    "timerFired": ("timerCreated", "timerId"),
    "subOrchestrationInstanceCompleted": ("subOrchestrationInstanceCreated", "taskScheduledId"),
    "subOrchestrationInstanceFailed": ("subOrchestrationInstanceCreated", "taskScheduledId"),
}


@dataclass(frozen=True)
class StoredInstance:
    """An instance as its tables say it is."""

    instance_id: str
    status: int
    history_count: int
    rows: Sequence[tuple[int, int, bytes]]  # first sequence, count, framed events


def check_hub(database_url: str) -> list[str]:
    """Return everything that is illegal in all hubs of a database; an empty list is what is wanted."""
    instances, leftovers = _read(database_url)
    found = [f"{one.instance_id}: {problem}" for one in instances for problem in check_instance(one)]
    return found + leftovers


def check_instance(one: StoredInstance) -> list[str]:
    """Return what is illegal in one instance's history."""
    problems, at = [], 0
    for first, count, data in one.rows:
        if first != at:
            problems.append(f"history is not dense: a row begins at {first}, expected {at}")
        at = first + count
        real = sum(1 for _ in iter_events(data))
        if real != count:
            problems.append(f"a history row says {count} events and holds {real}")
    if at != one.history_count:
        problems.append(f"history holds {at} events, the instance says {one.history_count}")
    events = [event for _, _, data in one.rows for event in iter_events(data)]
    return problems + check_events(events, ended=one.status in ENDED)


def check_events(events: Sequence[pb.HistoryEvent], *, ended: bool) -> list[str]:
    """Return what is illegal in the events of one execution."""
    if not events:
        return []
    kinds = [event.WhichOneof("eventType") for event in events]
    problems = []
    if kinds[:2] != ["orchestratorStarted", "executionStarted"] or kinds.count("executionStarted") != 1:
        problems.append(f"it does not begin with one start: {kinds[:3]}, {kinds.count('executionStarted')} starts")
    if kinds.count("executionCompleted") != int(ended) or (ended and kinds[-1] != "executionCompleted"):
        problems.append(f"an end is missing, doubled or not last: {kinds[-2:]}, {kinds.count('executionCompleted')} ends")
    return problems + _check_answers(events) + _check_clock(events)


def _check_answers(events: Iterable[pb.HistoryEvent]) -> list[str]:
    """Every result answers an earlier scheduling of its id; retries schedule an id again, so both are counted."""
    problems, waiting = [], Counter[tuple[str, int]]()
    for event in events:
        kind = event.WhichOneof("eventType")
        if kind in ("taskScheduled", "timerCreated", "subOrchestrationInstanceCreated"):
            waiting[kind, event.eventId] += 1
        elif kind in _ANSWERS:
            asked, field = _ANSWERS[kind]
            key = (asked, getattr(getattr(event, kind), field))
            waiting[key] -= 1
            if waiting[key] < 0:
                problems.append(f"{kind} of {key[1]} answers nothing, or a second time")
    return problems


def _check_clock(events: Iterable[pb.HistoryEvent]) -> list[str]:
    times = [(event.timestamp.seconds, event.timestamp.nanos) for event in events if event.HasField("orchestratorStarted")]
    return [] if times == sorted(set(times)) else ["the orchestration's clock stood still or went back"]


def results_counted(events: Iterable[pb.HistoryEvent]) -> int:
    """Return how many activity results a history holds."""
    return sum(event.WhichOneof("eventType") in ("taskCompleted", "taskFailed") for event in events)


def unpacked(content: bytes, size: int | None) -> bytes:
    """Return a payload's text; `size` is that of compressed content."""
    text = content if size is None else zlib.decompress(content)
    assert size in (None, len(text))
    return text


_HISTORY = """SELECT h.hub_id, h.instance_id, h.first_sequence, h.event_count, h.events, h.refs FROM history h
JOIN instances i ON i.hub_id = h.hub_id AND i.partition = h.partition AND i.instance_id = h.instance_id
AND i.execution_id = h.execution_id ORDER BY h.hub_id, h.instance_id, h.first_sequence"""

_LEFT = """SELECT q.instance_id FROM {table} q LEFT JOIN instances i ON i.hub_id = q.hub_id AND i.partition = q.partition
AND i.instance_id = q.instance_id WHERE (i.instance_id IS NULL OR i.status IN (1, 3, 4, 5)) AND q.instance_id NOT LIKE '@%'"""

_OF_NOBODY = """SELECT t.instance_id FROM {table} t LEFT JOIN instances i ON i.hub_id = t.hub_id AND i.partition = t.partition
AND i.instance_id = t.instance_id AND i.execution_id = t.execution_id WHERE i.instance_id IS NULL"""


def _read(url: str) -> tuple[list[StoredInstance], list[str]]:
    texts: dict[tuple[int, str], dict[int, bytes]] = {}
    for hub, instance_id, payload_id, content, size in rows(
            url, "SELECT hub_id, instance_id, payload_id, content, unpacked_size FROM payloads"):
        texts.setdefault((hub, instance_id), {})[payload_id] = unpacked(content, size)
    stored: dict[tuple[int, str], list[tuple[int, int, bytes]]] = {}
    for hub, instance_id, first, count, events, refs in rows(url, _HISTORY):
        whole = events if refs is None else put_back(events, refs, texts.get((hub, instance_id), {}))
        stored.setdefault((hub, instance_id), []).append((first, count, whole))
    instances = [StoredInstance(instance_id, status, count, stored.get((hub, instance_id), ()))
                 for hub, instance_id, status, count in rows(
                     url, "SELECT hub_id, instance_id, status, history_count FROM instances")]
    leftovers = [f"{instance_id}: a row of {table} is left over" for table in ("control_queue", "timers", "activity_queue")
                 for (instance_id,) in rows(url, _LEFT.format(table=table))]
    leftovers += [f"{instance_id}: a row of {table} belongs to no execution" for table in ("history", "payloads")
                  for (instance_id,) in rows(url, _OF_NOBODY.format(table=table))]
    return instances, leftovers + read_entities(url)
