"""Are the entities of a task hub legal? No lock without a living owner, no owner without its locks, nothing left over."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tables import rows

ENDED = (1, 3, 4, 5)
AHEAD = -1

Owner = tuple[str, str, str]  # instance, execution, critical section


@dataclass(frozen=True)
class StoredEntity:
    """An entity as its row says it is."""

    entity_id: str
    has_state: bool
    owner: Owner | None


@dataclass(frozen=True)
class StoredOwner:
    """An execution with its open critical sections: what each has not unlocked, and whether it was granted."""

    instance_id: str
    execution_id: str
    status: int
    sections: Mapping[str, tuple[tuple[str, ...], bool]]


def check_entities(entities: Iterable[StoredEntity], owners: Iterable[StoredOwner],
                   waiting: Iterable[tuple[str, int]] = ()) -> list[str]:
    """Return what is illegal once everything came to rest; `waiting` are rows of the queue: entity id and kind."""
    problems, locked = [], {one.entity_id: one.owner for one in entities if one.owner is not None}
    open_sections: dict[Owner, tuple[str, ...]] = {}
    for owner in owners:
        for section_id, (entity_ids, granted) in owner.sections.items():
            key = (owner.instance_id, owner.execution_id, section_id)
            open_sections[key] = entity_ids
            if owner.status in ENDED:
                problems.append(f"{owner.instance_id}: it has ended and left its section {section_id} open")
            if granted:
                problems += [f"{one}: it is not locked by {key}, which was told so" for one in entity_ids
                             if locked.get(one) != key]
    for entity in entities:
        if not entity.has_state and entity.owner is None:
            problems.append(f"{entity.entity_id}: its row has neither state nor lock")
        if entity.owner is not None and entity.entity_id not in open_sections.get(entity.owner, ()):
            problems.append(f"{entity.entity_id}: it is locked by {entity.owner}, which has no such section open")
    for entity_id, kind in waiting:
        if entity_id not in locked or kind == AHEAD:
            problems.append(f"{entity_id}: a message is left over")
    return problems


def read_entities(url: str) -> list[str]:
    """Read the tables, and return what is illegal in all hubs of a database."""
    entities: dict[int, list[StoredEntity]] = {}
    for hub, entity_id, state, *owner in rows(
            url, "SELECT hub_id, instance_id, state, lock_instance_id, lock_execution_id, lock_section_id FROM entities"):
        found = None if owner[0] is None else (owner[0], owner[1], owner[2])
        entities.setdefault(hub, []).append(StoredEntity(entity_id, state is not None, found))
    owners: dict[int, list[StoredOwner]] = {}
    for hub, instance_id, execution_id, status, sections in rows(
            url, "SELECT hub_id, instance_id, execution_id, status, sections FROM instances WHERE sections IS NOT NULL"):
        parsed = {one[0]: (tuple(one[1]), one[2]) for one in json.loads(bytes(sections))}
        owners.setdefault(hub, []).append(StoredOwner(instance_id, execution_id, status, parsed))
    waiting: dict[int, list[tuple[str, int]]] = {}
    for hub, entity_id, kind in rows(
            url, "SELECT hub_id, instance_id, kind FROM control_queue WHERE instance_id LIKE '@%'"):
        waiting.setdefault(hub, []).append((entity_id, kind))
    return [problem for hub in {*entities, *owners, *waiting}
            for problem in check_entities(entities.get(hub, []), owners.get(hub, []), waiting.get(hub, []))]
