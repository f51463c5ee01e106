"""Rows that belong to nobody: their instance or its execution is gone, or has ended without them.

A message may reach an instance in the moment in which it ends or is purged: its owner drops it when it meets it.
Activities outlive their execution, for their results are dropped by its id; only those of no instance at all are lost.
"""

from collections.abc import Iterable

from durabletask_sql.doctor.findings import DeleteRows, Finding, Level
from durabletask_sql.ids import partition_of
from durabletask_sql.model.belongings import Belonging, is_orphan
from durabletask_sql.ports.inspection import Belongings

_DELETE = "nothing needs it: `doctor --repair` deletes it"
_DROPPED = "the partition's owner drops it by itself; `doctor --repair` deletes it"
_MISPLACED = "nobody looks there: keep the database and report it"


def check_belongings(page: Belongings, partition_count: int, *, served: bool) -> list[Finding]:
    """Check a page. `served`: a server that lives owns the hub's partitions, and drops late messages."""
    return [finding for row in page.rows for finding in _check(row, page, partition_count, served=served)]


def _check(row: Belonging, page: Belongings, partition_count: int, *, served: bool) -> Iterable[Finding]:
    partition, instance_id = row.key
    what = f"rows of {row.table}" if row.seq is None else f"row {row.seq} of {row.table}"
    if partition != partition_of(instance_id, partition_count):
        yield Finding("orphans", instance_id, f"{what} in partition {partition}, where nobody looks for them", _MISPLACED)
        return
    owner = page.owners.get(row.key)
    if not is_orphan(row, owner):
        return
    if owner is None:
        why = "there is no such instance"
    elif row.execution_id in (None, owner.execution_id):
        why = f"the instance has ended ({owner.status.name})"
    else:
        why = f"its execution {row.execution_id} is gone"
    late = row.table == "control_queue"
    yield Finding("orphans", instance_id, f"{what} belongs to nobody: {why}", _DROPPED if late else _DELETE,
                  Level.NOTE if late and not served else Level.PROBLEM, passing=True, repair=DeleteRows(row))
