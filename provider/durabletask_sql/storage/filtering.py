"""Which items of a group still hold their fences: a pure function of what was locked and read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from durabletask_sql.model.checkpoints import (
    COMMITTED,
    ActivityCompletion,
    Discard,
    EntityCheckpoint,
    NewChild,
    OrchestrationStart,
    Outcome,
    OutcomeKind,
    Quarantine,
    TurnCheckpoint,
)
from durabletask_sql.model.creation import CHILD_POLICY, Decision
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.status import Status
from durabletask_sql.ports.committer import Group


class Fence(NamedTuple):
    """What a locking read says of an instance."""

    row_version: int
    status: Status
    execution_id: str
    generation: int


Task = tuple[int, int]  # partition, sequence


@dataclass(frozen=True, slots=True)
class Read:
    """What a group locked and read. A key in a plain mapping and not in the locked one is locked by another session."""

    partitions: frozenset[int]  # of those this group names: the ones that are ours, under the epoch that it gives
    locked: Mapping[InstanceKey, Fence]
    plain: Mapping[InstanceKey, Fence]
    locked_tasks: Mapping[Task, int]
    plain_tasks: Mapping[Task, int]
    locked_entities: Mapping[InstanceKey, int] = field(default_factory=dict)
    plain_entities: Mapping[InstanceKey, int] = field(default_factory=dict)
    recursive: frozenset[InstanceKey] = frozenset()  # of what ends here: those that a queued termination recurses from


@dataclass(slots=True)
class Kept:
    """What the filter lets through. `children` says what becomes of each child of each kept turn."""

    outcomes: list[Outcome] = field(default_factory=list)
    created: list[NewChild] = field(default_factory=list)
    replaced: list[tuple[NewChild, Fence]] = field(default_factory=list)
    refused: list[NewChild] = field(default_factory=list)
    recursive: frozenset[InstanceKey] = frozenset()  # as read


def can_be_trusted(group: Group) -> bool:
    """Tell whether all fences of a group are in its statements: those of instances, new children and activity tasks.

    An end that has to look into the queue first is none of them.
    """
    return not group.alone and all(
        isinstance(item, ActivityCompletion | OrchestrationStart)
        or (isinstance(item, TurnCheckpoint) and not item.if_recursive)
        for item in group.items)


def trusted(group: Group, partitions: frozenset[int]) -> Read:
    """Return what a group would read if all its fences held and the ids of all its children were free."""
    fences, tasks = dict[InstanceKey, Fence](), dict[Task, int]()
    for item in group.items:
        if isinstance(item, TurnCheckpoint):
            fences[item.key] = Fence(item.expected_version, Status.RUNNING, item.row.execution_id, item.row.generation)
        elif isinstance(item, ActivityCompletion):
            tasks[item.key.partition, item.seq] = item.token
    return Read(partitions, fences, fences, tasks, tasks)


def filter_items(group: Group, read: Read) -> Kept:
    """Return an outcome for each item: COMMITTED for those that stay, LOST or BUSY with the cause for the others."""
    kept, taken = Kept(recursive=read.recursive), set[InstanceKey]()
    for item in group.items:
        match item:
            case TurnCheckpoint():
                outcome = _check_turn(item, read)
            case EntityCheckpoint():
                outcome = _check_entity(item, read)
            case OrchestrationStart():
                outcome = _check_start(item, read, taken, kept)
            case ActivityCompletion():
                outcome = _check_task((item.key.partition, item.seq), item.token, read)
            case Quarantine(activity=(seq, token)):
                outcome = _check_task((item.key.partition, seq), token, read)
            case Discard() | Quarantine():
                outcome = COMMITTED if item.key.partition in read.partitions else _lost("its partition is not ours")
        if outcome is COMMITTED and isinstance(item, TurnCheckpoint | EntityCheckpoint):
            for child in item.children:
                _resolve(child, read, taken, kept)
        kept.outcomes.append(outcome)
    return kept


def _lost(cause: str) -> Outcome:
    return Outcome(OutcomeKind.LOST, cause)


def _check_turn(item: TurnCheckpoint, read: Read) -> Outcome:
    if item.key.partition not in read.partitions:
        return _lost("its partition is not ours")
    there, locked = read.plain.get(item.key), read.locked.get(item.key)
    if there is None or there.row_version != item.expected_version:
        found = "gone" if there is None else f"at version {there.row_version}"
        return _lost(f"the instance is {found}, the turn expects version {item.expected_version}")
    if locked is None:
        return Outcome(OutcomeKind.BUSY, "the instance's row is locked by another session")
    if locked.row_version != item.expected_version:
        return _lost("the instance changed while it was locked")
    return _check_children(item.children, read)


def _check_start(item: OrchestrationStart, read: Read, taken: set[InstanceKey], kept: Kept) -> Outcome:
    """Only a free id is taken; whether an instance that is there is replaced is for its client's transaction to say."""
    if item.key.partition not in read.partitions:
        return _lost("its partition is not ours")
    there = read.plain.get(item.key)
    if there is not None and there.execution_id == item.child.row.execution_id:
        return COMMITTED  # by a commit whose outcome was not known
    if there is not None or item.key in taken:
        return _lost(f"the id '{item.key.instance_id}' is taken")
    taken.add(item.key)
    kept.created.append(item.child)
    return COMMITTED


def _check_entity(item: EntityCheckpoint, read: Read) -> Outcome:
    """An entity without a row has version 0: only its partition's owner makes one."""
    if item.key.partition not in read.partitions:
        return _lost("its partition is not ours")
    there, locked = read.plain_entities.get(item.key, 0), read.locked_entities.get(item.key, 0)
    if there != item.expected_version:
        return _lost(f"the entity is at version {there}, the step expects version {item.expected_version}")
    if there and not locked:
        return Outcome(OutcomeKind.BUSY, "the entity's row is locked by another session")
    if locked != there:
        return _lost("the entity changed while it was locked")
    return _check_children(item.children, read)


def _check_children(children: Sequence[NewChild], read: Read) -> Outcome:
    for child in children:
        if child.row.key in read.plain and child.row.key not in read.locked:
            return Outcome(OutcomeKind.BUSY, f"the child '{child.row.instance_id}' is locked by another session")
    return COMMITTED


def _check_task(task: Task, token: int, read: Read) -> Outcome:
    there, locked = read.plain_tasks.get(task), read.locked_tasks.get(task)
    if there is None or there != token:
        return _lost("the activity task is gone or claimed anew")
    if locked is None:
        return Outcome(OutcomeKind.BUSY, "the activity task's row is locked by another session")
    return COMMITTED if locked == token else _lost("the activity task was claimed anew")


def _resolve(child: NewChild, read: Read, taken: set[InstanceKey], kept: Kept) -> None:
    """A free id is created, an ended instance replaced, a live one left alone and its would-be parent told (S-102)."""
    key = child.row.key
    existing = read.locked.get(key)
    if key in taken:
        kept.refused.append(child)
        return
    decision = CHILD_POLICY.decide(existing.status if existing is not None else None)
    if decision is Decision.REFUSE:
        kept.refused.append(child)
        return
    taken.add(key)
    if existing is None:
        kept.created.append(child)
    else:
        kept.replaced.append((child, existing))
