"""What the tables say of entities, and whether that is what the model says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from stateful.entity_model import Entities, Entity
from stateful.words import Word, message

_AHEAD = -1


@dataclass
class StoredEntity:
    """One entity as its rows say it is: what waits for it is told apart by whether it goes ahead."""

    state: str | None = None
    lock: tuple[str, str] | None = None  # the instance, the section
    queue: list[tuple[bool, Word]] = field(default_factory=list)
    delayed: list[tuple[int, Word]] = field(default_factory=list)


Rows = Iterable[Mapping[str, Any]]


def read(entities: Rows, queue: Rows, timers: Rows) -> dict[str, StoredEntity]:
    """Read entities from their tables, the queue in order of sequence."""
    found = dict[str, StoredEntity]()
    for row in entities:
        lock = row["lock_instance_id"] and (row["lock_instance_id"], row["lock_section_id"])
        found[row["instance_id"]] = StoredEntity(row["state"] and bytes(row["state"]).decode(), lock)
        assert found[row["instance_id"]] != StoredEntity(), f"{row['instance_id']} has a row, but neither state nor lock"
    for row in queue:
        if row["instance_id"].startswith("@"):
            there = found.setdefault(row["instance_id"], StoredEntity())
            there.queue.append((row["kind"] == _AHEAD, message(bytes(row["events"]))))
    for row in timers:
        if row["instance_id"].startswith("@"):
            there = found.setdefault(row["instance_id"], StoredEntity())
            there.delayed.append((row["fire_at"], message(bytes(row["events"]))))
    return found


def differences(wanted: Entities, found: Mapping[str, StoredEntity]) -> list[str]:
    """Return how they differ."""
    problems = []
    for one in sorted(wanted.all.keys() | found.keys()):
        there = _without_what_is_taken_back(found.get(one, StoredEntity()))
        should = _without_what_is_taken_back(_stored(wanted.all.get(one, Entity(one))))
        if there != should:
            problems.append(f"{one}: is {there!r}, should be {should!r}")
    return problems


def _without_what_is_taken_back(entity: StoredEntity) -> StoredEntity:
    """Leave out requests that wait behind a lock and are taken back: they may have gone, or go once it is free."""
    if entity.lock is None:
        return entity
    said = [one for _, one in entity.queue]
    sections = {one[1] for one in said if one[0] == "release" and len(one) > 2 and ("lock", one[1]) in said}
    left = [one for one in entity.queue if one[1][0] == "operation" or one[1][1] not in sections]
    return replace(entity, queue=left)


def _stored(entity: Entity) -> StoredEntity:
    lock = None if entity.lock is None else (entity.lock.instance, entity.lock.section)
    delayed = sorted((due, one.number, one.word) for due, one in entity.delayed)
    return StoredEntity(entity.state, lock, [(one.ahead, one.word) for one in entity.queue],
                        [(due, said) for due, _, said in delayed])
