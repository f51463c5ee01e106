"""From the items of a group that stay to the rows that it writes, a list a statement. No IO."""

from dataclasses import dataclass, field, replace

from durabletask_sql.model.checkpoints import (
    ActivityCompletion,
    Discard,
    EntityCheckpoint,
    OrchestrationStart,
    OutcomeKind,
    Quarantine,
    TurnCheckpoint,
)
from durabletask_sql.model.entities import EntityRow
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.messages import MessageKind, NewActivity, NewMessage, NewTimer
from durabletask_sql.model.payloads import Packed
from durabletask_sql.ports.committer import Group
from durabletask_sql.protocol.texts import INPUT
from durabletask_sql.storage.dialect import Row
from durabletask_sql.storage.filtering import Kept
from durabletask_sql.storage.packing import history_row, pack_inputs, pack_turn, payload_row


@dataclass(slots=True)
class Writes:
    """The rows that a group writes, a list a statement."""

    turned: list[InstanceRow] = field(default_factory=list)  # of which an ordinary turn changed what changes
    updated: list[InstanceRow] = field(default_factory=list)
    inserted: list[InstanceRow] = field(default_factory=list)
    updated_entities: list[EntityRow] = field(default_factory=list)
    inserted_entities: list[EntityRow] = field(default_factory=list)
    deleted_entities: list[InstanceKey] = field(default_factory=list)
    payloads: list[Row] = field(default_factory=list)
    inputs: dict[str, Packed] = field(default_factory=dict)  # of children, by execution id
    old_executions: list[Row] = field(default_factory=list)
    done_tasks: list[Row] = field(default_factory=list)
    new_tasks: list[NewActivity] = field(default_factory=list)
    unclaimed: list[InstanceKey] = field(default_factory=list)
    consumed: list[Row] = field(default_factory=list)
    dropped: list[Row] = field(default_factory=list)
    swept: list[InstanceKey] = field(default_factory=list)
    messages: list[tuple[NewMessage, bool]] = field(default_factory=list)  # with: enters whatever `entering` says
    fired: list[Row] = field(default_factory=list)
    dropped_timers: list[Row] = field(default_factory=list)
    swept_timers: list[InstanceKey] = field(default_factory=list)
    timers: list[NewTimer] = field(default_factory=list)
    history: list[Row] = field(default_factory=list)
    aside: list[Quarantine] = field(default_factory=list)
    children: list[InstanceRow] = field(default_factory=list)


def plan(group: Group, kept: Kept) -> Writes:
    """Turn the items that stay into rows to write."""
    writes = Writes()
    for item, outcome in zip(group.items, kept.outcomes, strict=True):
        if outcome.kind is not OutcomeKind.COMMITTED:
            continue
        match item:
            case TurnCheckpoint():
                _plan_turn(writes, item)
                if item.key in kept.recursive:
                    writes.messages += [(message, False) for message in item.if_recursive]
            case EntityCheckpoint():
                _plan_step(writes, item)
            case OrchestrationStart():
                writes.inputs.update(pack_inputs((item.child,)))
            case ActivityCompletion():
                writes.done_tasks.append((item.key.partition, item.seq, item.token))
                writes.messages.append((item.message, False))
            case Discard():
                writes.dropped += [(item.key.partition, seq) for seq in item.seqs]
                writes.dropped_timers += [(item.key.partition, seq) for seq in item.timers]
            case Quarantine():
                _plan_quarantine(writes, item)
    _plan_children(writes, kept)
    return writes


def _plan_turn(writes: Writes, item: TurnCheckpoint) -> None:
    partition, instance_id = item.key
    (writes.turned if item.continued_from is None else writes.updated).append(item.row)
    writes.dropped += [(partition, seq) for seq in item.discarded]
    _plan_queues(writes, item)
    writes.new_tasks += item.activities
    packed = item.packed if item.packed is not None else pack_turn(item)
    writes.inputs.update(packed.inputs)
    if item.history is not None:
        writes.history.append(history_row(item.key, item.history, packed))
    writes.payloads += [payload_row(item.row, payload_id, text) for payload_id, text in packed.texts.items()]
    if item.ended:
        writes.swept.append(item.key)
    if item.ended or item.continued_from is not None:
        writes.swept_timers.append(item.key)
    if item.drop_unclaimed:
        writes.unclaimed.append(item.key)
    if item.continued_from is not None:
        writes.old_executions.append((partition, instance_id, item.continued_from))


def _plan_step(writes: Writes, item: EntityCheckpoint) -> None:
    """There is a row as long as there is a state or a lock: its end is as much a part of the step as its beginning."""
    if item.row is not None:
        (writes.updated_entities if item.expected_version else writes.inserted_entities).append(item.row)
    elif item.expected_version:
        writes.deleted_entities.append(item.key)
    writes.inputs.update(pack_inputs(item.children))
    _plan_queues(writes, item)


def _plan_queues(writes: Writes, item: TurnCheckpoint | EntityCheckpoint) -> None:
    partition = item.key.partition
    writes.consumed += [(partition, seq) for seq in item.consumed]
    writes.fired += [(partition, seq) for seq in item.consumed_timers]
    writes.messages += [(message, message.kind is MessageKind.START) for message in item.messages]
    writes.timers += item.timers


def _plan_quarantine(writes: Writes, item: Quarantine) -> None:
    """What is set aside is copied before it is deleted, and all of it must still be there."""
    writes.aside.append(item)
    partition = item.key.partition
    writes.consumed += [(partition, seq) for seq in item.seqs]
    writes.fired += [(partition, seq) for seq in item.timers]
    if item.activity is not None:
        writes.done_tasks.append((partition, *item.activity))


def _plan_children(writes: Writes, kept: Kept) -> None:
    """New instances for free ids, replacement of ended ones with all that they left, a message for the refused."""
    for child in kept.created:
        writes.inserted.append(child.row)
        _plan_child(writes, child.row, child.start)
    for child, old in kept.replaced:
        row = replace(child.row, row_version=old.row_version + 1, generation=old.generation)
        writes.updated.append(row)
        writes.old_executions.append((*row.key, old.execution_id))
        writes.swept.append(row.key)
        writes.swept_timers.append(row.key)
        writes.unclaimed.append(row.key)
        _plan_child(writes, row, child.start)
    writes.messages += [(child.refusal, False) for child in kept.refused if child.refusal is not None]


def _plan_child(writes: Writes, row: InstanceRow, start: NewMessage) -> None:
    writes.children.append(row)
    if row.scheduled_at is None:
        writes.messages.append((start, True))
    else:
        writes.timers.append(NewTimer(row.key, row.execution_id, start.kind, row.scheduled_at, start.events))
    text = writes.inputs.get(row.execution_id)
    if text is not None:
        writes.payloads.append(payload_row(row, INPUT, text))
