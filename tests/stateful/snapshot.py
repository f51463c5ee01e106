"""What the tables of a hub say, read past the server, and whether that is what the model says."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import psycopg

from checker import unpacked
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.texts import INPUT, OUTPUT, put_back
from stateful import entity_snapshot
from stateful.entity_snapshot import StoredEntity
from stateful.instances import Instance
from stateful.model import Model
from stateful.words import Word, word, words

_TABLES = ("instances", "history", "payloads", "control_queue", "timers", "activity_queue", "entities", "quarantine", "hosts",
           "partitions", "task_hubs")


@dataclass
class Stored:
    """One instance as its rows say it is."""

    row: dict[str, Any]
    history: list[Word] = field(default_factory=list)
    payloads: dict[int, str] = field(default_factory=dict)
    queue: list[tuple[Word, ...]] = field(default_factory=list)  # the live rows, the start first
    timers: list[tuple[int, Word]] = field(default_factory=list)


@dataclass
class Snapshot:
    """A hub."""

    instances: dict[str, Stored]
    tasks: Counter[str]
    entities: dict[str, StoredEntity]
    quarantined: int


class Tables:
    """A connection of the test's own to the database."""

    def __init__(self, url: str) -> None:
        self._sqlite = url.startswith("sqlite")
        if self._sqlite:
            self._connection: Any = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=10)
        else:
            self._connection = psycopg.connect(url, autocommit=True)

    def close(self) -> None:
        self._connection.close()

    def expire(self, hub: int) -> None:
        """Let the leases of all hosts of a hub run out."""
        self._connection.execute(f"UPDATE hosts SET expires_at = 0 WHERE hub_id = {hub}")

    def erase(self, hub: int) -> None:
        """Delete everything of a hub, so that the next ones are not in its company."""
        for table in _TABLES:
            self._connection.execute(f"DELETE FROM {table} WHERE hub_id = {hub}")

    def _rows(self, table: str, hub: int, order: str, columns: str = "*") -> list[dict[str, Any]]:
        cursor = self._connection.execute(f"SELECT {columns} FROM {table} WHERE hub_id = {hub} ORDER BY {order}")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def read(self, hub: int) -> Snapshot:
        """Read everything of a hub. Rows that no turn will ever take are left out: only the checker minds them."""
        found = {row["instance_id"]: Stored(row) for row in self._rows("instances", hub, "instance_id")}
        self._read_texts(hub, found)
        queue, timers = self._rows("control_queue", hub, "seq"), self._rows("timers", hub, "fire_at, seq")
        for row in sorted(queue, key=lambda row: row["kind"]):
            if _is_current(found, row) and not _has_ended(found[row["instance_id"]]):
                found[row["instance_id"]].queue.append(tuple(words([bytes(row["events"])])))
        for row in timers:
            if _is_current(found, row):
                found[row["instance_id"]].timers.append((row["fire_at"], words([bytes(row["events"])])[0]))
        tasks = Counter(word(pb.HistoryEvent.FromString(bytes(row["event"])))[3]
                        for row in self._rows("activity_queue", hub, "seq"))
        entities = entity_snapshot.read(self._rows("entities", hub, "instance_id"), queue, timers)
        return Snapshot(found, tasks, entities, len(self._rows("quarantine", hub, "seq", "seq")))

    def _read_texts(self, hub: int, found: dict[str, Stored]) -> None:
        """Read payloads and histories, the latter with their large texts in place."""
        texts: dict[str, dict[int, bytes]] = {}
        for row in self._rows("payloads", hub, "instance_id"):
            if _is_current(found, row):
                text = unpacked(bytes(row["content"]), row["unpacked_size"])
                texts.setdefault(row["instance_id"], {})[row["payload_id"]] = text
                if row["payload_id"] in (INPUT, OUTPUT):
                    found[row["instance_id"]].payloads[row["payload_id"]] = text.decode()
        for row in self._rows("history", hub, "instance_id, first_sequence"):
            if _is_current(found, row):
                whole, own = bytes(row["events"]), texts.get(row["instance_id"], {})
                if row["refs"] is not None:
                    whole = put_back(whole, bytes(row["refs"]), own)
                found[row["instance_id"]].history += words([whole])


def _is_current(found: dict[str, Stored], row: dict[str, Any]) -> bool:
    """Whether a row is of an instance's execution, or for it: from nobody's execution, or from its parent's."""
    there = found.get(row["instance_id"])
    return there is not None and row["execution_id"] in (
        None, there.row["execution_id"], there.row["parent_execution_id"])


def _has_ended(there: Stored) -> bool:
    return Status(there.row["status"]).is_terminal


def differences(model: Model, snapshot: Snapshot) -> list[str]:
    """Return how the tables differ from what the model says; an empty list is what is wanted."""
    found = entity_snapshot.differences(model.entities, snapshot.entities)
    for instance_id in sorted(model.instances.keys() | snapshot.instances.keys()):
        wanted, there = model.instances.get(instance_id), snapshot.instances.get(instance_id)
        if wanted is None or there is None:
            found.append(f"{instance_id}: is {'not ' if there is None else ''}there")
        else:
            found += [f"{instance_id}: {name} is {is_!r}, should be {should!r}"
                      for name, is_, should in _compare(wanted, there) if is_ != should]
    needed = Counter(task.input for task in model.tasks.values() if not task.optional)
    known = Counter(list(model.tasks))
    if needed - snapshot.tasks or snapshot.tasks - known:
        found.append(f"activities are {dict(snapshot.tasks)}, should be {dict(needed)}, may be {dict(known)}")
    if snapshot.quarantined:
        found.append(f"{snapshot.quarantined} items were set aside")
    return found


def _compare(wanted: Instance, there: Stored) -> list[tuple[str, object, object]]:
    row = there.row
    failure = row["failure"] and pb.TaskFailureDetails.FromString(bytes(row["failure"]))
    parent = row["parent_instance_id"] and (row["parent_instance_id"], row["parent_task_id"])
    starts = [] if wanted.start is None else [wanted.start]
    return [
        ("status", Status(row["status"]), wanted.status),
        ("history", there.history, wanted.history),
        ("history_count", row["history_count"], len(wanted.history)),
        ("input", there.payloads.get(0), wanted.input),
        ("output", there.payloads.get(1), wanted.output),
        ("failure", failure and (failure.errorType, failure.errorMessage), wanted.failure),
        ("custom status", row["custom_status"] and bytes(row["custom_status"]).decode(), wanted.note),
        ("generation", row["generation"], wanted.generation),
        ("created_at", row["created_at"], wanted.created),
        ("scheduled_at", row["scheduled_at"], wanted.scheduled),
        ("parent", parent, wanted.parent and (wanted.parent[0], wanted.parent[2])),
        ("sections", json.loads(bytes(row["sections"] or b"[]")),
         [[one.id, list(one.entities), one.granted] for one in wanted.sections]),
        ("rewinds", row["rewinds"], wanted.rewinds),
        ("queue", there.queue, starts + [(told,) for told in wanted.inbox]),
        ("timers", there.timers, sorted((timer.due, timer.told) for timer in wanted.timers)),
    ]


def is_running(snapshot: Snapshot, instance_id: str, execution: str) -> bool:
    """Whether an execution is an instance's current one and has not ended."""
    there = snapshot.instances.get(instance_id)
    return there is not None and there.row["execution_id"] == execution and is_live(snapshot, instance_id)


def is_live(snapshot: Snapshot, instance_id: str) -> bool:
    """Whether an instance has not ended."""
    return not _has_ended(snapshot.instances[instance_id])
