"""Rows that belong to an execution, and when they belong to nobody any more."""

from typing import NamedTuple

from durabletask_sql.ids import is_entity
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.status import Status

QUEUES = ("activity_queue", "control_queue", "timers")


class Belonging(NamedTuple):
    """A row of a queue (with its sequence), or all rows of `history` or `payloads` of one execution.

    `execution_id` None addresses whatever execution runs.
    """

    table: str
    key: InstanceKey
    execution_id: str | None
    seq: int | None = None


class Owner(NamedTuple):
    """The execution and the status of the instance that rows name."""

    execution_id: str
    status: Status


def is_orphan(row: Belonging, owner: Owner | None) -> bool:
    """Tell whether a row belongs to nobody, given its instance (None: there is none).

    An entity need not exist to have messages. Activities outlive their execution: their results are dropped by its
    id, so that only those of no instance at all are lost.
    """
    if row.table in ("control_queue", "timers") and is_entity(row.key.instance_id):
        return False
    if owner is None:
        return True
    match row.table:
        case "activity_queue":
            return False
        case "control_queue":
            return owner.status.is_terminal
        case "timers":
            return owner.status.is_terminal or row.execution_id != owner.execution_id
        case _:
            return row.execution_id != owner.execution_id
