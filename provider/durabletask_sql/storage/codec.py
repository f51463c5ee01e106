"""Rows of `instances` as values of the model, and back."""

import json
from typing import Any

from durabletask_sql.model.instances import CriticalSection, InstanceRow, ParentLink
from durabletask_sql.model.status import Status
from durabletask_sql.storage.tables import instances

COLUMNS = tuple(column for column in instances.c if column.name != "hub_id")
# The key, and what a turn changes that neither begins an execution nor replaces one.
TURN_COLUMNS = ("partition", "instance_id", "row_version", "status", "updated_at", "completed_at", "history_count",
                "last_turn_at", "custom_status", "failure", "trace", "sections")


def encode_instance(row: InstanceRow) -> tuple[object, ...]:
    """Return the values of COLUMNS."""
    parent = row.parent
    links: tuple[object, ...] = (None,) * 5 if parent is None else (
        parent.instance_id, parent.execution_id, parent.task_scheduled_id, parent.name, parent.version)
    return (
        row.partition, row.instance_id, row.execution_id, row.generation, row.row_version, row.name, row.version,
        int(row.status), row.created_at, row.updated_at, row.completed_at, row.scheduled_at, row.history_count,
        row.last_turn_at, encode_text(row.custom_status), row.failure, *links,
        json.dumps(dict(row.tags)).encode() if row.tags else None, row.trace, row.rewinds,
        _encode_sections(row))


def encode_turn(row: InstanceRow) -> tuple[object, ...]:
    """Return the values of TURN_COLUMNS."""
    return (row.partition, row.instance_id, row.row_version, int(row.status), row.updated_at, row.completed_at,
            row.history_count, row.last_turn_at, encode_text(row.custom_status), row.failure, row.trace,
            _encode_sections(row))


def decode_instance(values: tuple[Any, ...]) -> InstanceRow:
    """Return the model's row of the values of COLUMNS."""
    (partition, instance_id, execution_id, generation, row_version, name, version, status, created_at, updated_at,
     completed_at, scheduled_at, history_count, last_turn_at, custom_status, failure, parent_id, parent_execution,
     parent_task, parent_name, parent_version, tags, trace, rewinds, sections) = values
    parent = None if parent_id is None else ParentLink(parent_id, parent_execution, parent_task, parent_name,
                                                       parent_version)
    return InstanceRow(
        partition, instance_id, execution_id, generation, row_version, name, version, Status(status), created_at,
        updated_at, completed_at, scheduled_at, history_count, last_turn_at, decode_text(custom_status), failure,
        parent, json.loads(tags) if tags else {}, trace, rewinds, _decode_sections(sections))


def _encode_sections(row: InstanceRow) -> bytes | None:
    return json.dumps(row.sections).encode() if row.sections else None


def _decode_sections(data: bytes | None) -> tuple[CriticalSection, ...]:
    return tuple(CriticalSection(section_id, tuple(entity_ids), granted)
                 for section_id, entity_ids, granted in json.loads(data)) if data else ()


def encode_text(text: str | None) -> bytes | None:
    """Return a payload as bytes: they may hold anything, U+0000 included."""
    return None if text is None else text.encode()


def decode_text(content: bytes | None) -> str | None:
    """Return a payload as text."""
    return None if content is None else content.decode()
