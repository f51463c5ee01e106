"""Entities: a row has a state or a lock, and whoever holds a lock lives and knows of it."""

from collections.abc import Iterable

from durabletask_sql.doctor.findings import Finding, Level, ReleaseLock
from durabletask_sql.ids import partition_of
from durabletask_sql.ports.inspection import Lock

_REPORT = "this is a bug or damage: keep the database and report it"
_FREE = "nobody will free it: `doctor --repair` does (or CleanEntityStorage)"


def check_lock(lock: Lock, partition_count: int, *, served: bool) -> Iterable[Finding]:
    """Check one entity. A release follows its section's request from entity to entity: for a while it is elsewhere."""
    entity, holder = lock.entity, lock.holder
    if entity.partition != partition_of(entity.instance_id, partition_count):
        yield Finding("entities", entity.instance_id, f"it stands in partition {entity.partition}, where nobody looks for "
                      "it", _REPORT)
    if entity.lock is None:
        if entity.state is None:
            yield Finding("entities", entity.instance_id, "its row has neither a state nor a lock", _REPORT)
        return
    owner = entity.lock
    if lock.has_release:
        return  # whatever holds it, a message on its way may free it
    if holder is None or holder.execution_id != owner.execution_id or holder.status.is_terminal:
        yield Finding("locks", entity.instance_id, f"it is locked by {owner.instance_id} (execution {owner.execution_id}), "
                      "which does not live any more", _FREE,
                      Level.PROBLEM if served else Level.NOTE, passing=True, repair=ReleaseLock(entity.instance_id))
    elif not any(section.section_id == owner.section_id and entity.instance_id in section.entities
                 for section in holder.sections):
        yield Finding("locks", entity.instance_id, f"it is locked by {owner.instance_id} for its section "
                      f"{owner.section_id}, which knows nothing of it", _REPORT)
