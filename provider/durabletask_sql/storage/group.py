"""One attempt at a group commit: in one flush while every fence holds; else lock and read, filter, write, in two.

Tables are written in the fixed order instances, entities, activity_queue, control_queue, timers, history, payloads,
and inside a table by key.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from durabletask_sql.model.checkpoints import (
    ActivityCompletion,
    EntityCheckpoint,
    OrchestrationStart,
    OutcomeKind,
    Quarantine,
    TurnCheckpoint,
)
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import ActivityRow, MessageKind, NewActivity, NewMessage, NewTimer, QueueRow, TimerRow
from durabletask_sql.model.quarantine import Source
from durabletask_sql.model.status import Status
from durabletask_sql.ports.committer import Committed, Group
from durabletask_sql.storage import aside
from durabletask_sql.storage import entity_statements as entity_sql
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.codec import encode_instance, encode_turn
from durabletask_sql.storage.dialect import Row, Statement
from durabletask_sql.storage.filtering import Fence, Kept, Read, filter_items, trusted
from durabletask_sql.storage.planning import Writes, plan
from durabletask_sql.storage.session import Reply, Session
from durabletask_sql.turn.termination import RECURSIVE_TAIL, is_recursive


class GroupAttempt:
    """A group on its way through one transaction. The session's errors pass through; nothing remains of it then."""

    def __init__(self, session: Session, hub_id: int, group: Group, *, one_writer: bool) -> None:
        """Take the parts. `one_writer`: the transaction holds the only write lock, so plain reads lock."""
        self._session = session
        self._hub = hub_id
        self._group = group
        self._one_writer = one_writer
        self._named_partitions = self._name_partitions(group)

    def run_trusting(self) -> Committed:
        """Commit in one flush, on the understanding that every fence holds.

        The statements check the fences by themselves: raises ShortWriteError, and nothing has happened, when one does
        not hold or cannot be locked; which one, `run` finds out.
        """
        group, named = self._group, self._named_partitions
        self._session.begin()
        self._send(sql.HOLD_PARTITIONS, [(partition, group.epochs[partition]) for partition in named],
                   owner=group.host_id)
        read = trusted(group, frozenset(named))
        kept = filter_items(group, read)
        writes = plan(group, kept)
        sent = self._write(writes, read, _without(group.looks, writes.swept))
        self._session.commit()
        return self._committed(kept, writes, read, sent)

    def run(self) -> Committed:
        """Commit what still holds its fence; return what became of each item."""
        group = self._group
        self._session.begin(lock_timeout_ms=50 if group.alone else None)
        read = self._lock_and_read()
        kept = filter_items(group, read)
        writes = plan(group, kept)
        if all(outcome.kind is not OutcomeKind.COMMITTED for outcome in kept.outcomes) and not group.looks:
            self._session.rollback()
            return Committed(tuple(kept.outcomes), lost_partitions=self._lost(read))
        looks = _without(group.looks, writes.swept)
        sent = self._write(writes, read, [key for key in looks if key.partition in read.partitions])
        self._session.commit()
        return self._committed(kept, writes, read, sent)

    def _lost(self, read: Read) -> frozenset[int]:
        return frozenset(self._named_partitions) - read.partitions

    @staticmethod
    def _name_partitions(group: Group) -> list[int]:
        """Return the partitions whose epoch a group depends on: those of its items, targets and looks that are ours."""
        named = set[int]()
        for item in group.items:
            if not isinstance(item, ActivityCompletion):
                named.add(item.key.partition)
            if isinstance(item, TurnCheckpoint | EntityCheckpoint):
                named.update(child.row.partition for child in item.children)
                named.update(timer.key.partition for timer in item.timers)
        named.update(key.partition for key in group.entering)
        named.update(key.partition for key in group.looks)
        return sorted(named & group.epochs.keys())

    # Flush 1

    def _lock_and_read(self) -> Read:
        """Lock what the items need. What is not there to be locked is read plainly: it is locked by another, or gone."""
        group = self._group
        instances, children, tasks = set[InstanceKey](), set[InstanceKey](), set[tuple[int, int]]()
        entities, new_entities = set[InstanceKey](), set[InstanceKey]()
        for item in group.items:
            if isinstance(item, TurnCheckpoint):
                instances.add(item.key)
                children.update(child.row.key for child in item.children)
            elif isinstance(item, EntityCheckpoint):
                (entities if item.expected_version else new_entities).add(item.key)
                children.update(child.row.key for child in item.children)
            elif isinstance(item, OrchestrationStart):
                children.add(item.key)
            elif isinstance(item, ActivityCompletion):
                tasks.add((item.key.partition, item.seq))
            elif isinstance(item, Quarantine) and item.activity is not None:
                tasks.add((item.key.partition, item.activity[0]))
        partitions = self._send(sql.LOCK_PARTITIONS, [(partition,) for partition in self._named_partitions])
        locks = not self._one_writer
        locked = self._send(sql.LOCK_FENCES if locks else sql.READ_FENCES, sorted(instances | children))
        locked_entities = self._send(entity_sql.LOCK_FENCES if locks else entity_sql.READ_FENCES,
                                     sorted(entities | new_entities))
        locked_tasks = self._send(sql.LOCK_TASKS if locks else sql.READ_TASKS, sorted(tasks))
        ending = {item.key: item.row for item in group.items if isinstance(item, TurnCheckpoint) and item.if_recursive}
        terminations = self._send(sql.READ_ENDING_WITH, sorted(ending), tail=RECURSIVE_TAIL)
        # New children and new entities are seldom there: asking at once saves a round trip.
        plain = self._send(sql.READ_FENCES, sorted(children)) if locks else Reply()
        plain_entities = self._send(entity_sql.READ_FENCES, sorted(new_entities)) if locks else Reply()
        self._session.flush()
        fences, tokens, versions = _fences(locked), _tokens(locked_tasks), _versions(locked_entities)
        plain_fences, plain_tokens, plain_versions = (
            {**_fences(plain), **fences}, tokens, {**_versions(plain_entities), **versions})
        if locks and (instances - fences.keys() or tasks - tokens.keys() or entities - versions.keys()):
            missing = self._send(sql.READ_FENCES, sorted(instances - fences.keys()))
            missing_entities = self._send(entity_sql.READ_FENCES, sorted(entities - versions.keys()))
            missing_tasks = self._send(sql.READ_TASKS, sorted(tasks - tokens.keys()))
            self._session.flush()
            plain_fences, plain_tokens = {**_fences(missing), **plain_fences}, {**_tokens(missing_tasks), **tokens}
            plain_versions = {**_versions(missing_entities), **plain_versions}
        ours = frozenset(partition for partition, owner, epoch in partitions.rows
                         if owner == group.host_id and epoch == group.epochs.get(partition))
        recursive = frozenset(key for partition, instance_id, execution_id, events in terminations.rows
                              if ending[key := InstanceKey(partition, instance_id)].is_addressed_by(execution_id)
                              and is_recursive(bytes(events)))
        return Read(ours, fences, plain_fences, tokens, plain_tokens, versions, plain_versions, recursive)

    def _send(self, statement: Statement, rows: Sequence[Row], **scalars: object) -> Reply:
        """Send a batch; a statement without rows is not sent."""
        return self._session.send(statement, rows, hub=self._hub, **scalars) if rows else Reply()

    def _send_sorted(self, *batches: tuple[Statement, Iterable[Row]]) -> None:
        """Send batches whose replies tell nothing, each in the order of its rows."""
        for statement, rows in batches:
            listed = sorted(rows)
            if listed:
                self._session.send(statement, listed, hub=self._hub)

    # Flush 2

    def _write(self, writes: Writes, read: Read, looks: list[InstanceKey]) -> "Sent":
        group = self._group
        self._send_sorted((sql.UPDATE_TURNS, map(encode_turn, writes.turned)),
                          (sql.UPDATE_INSTANCES, map(encode_instance, writes.updated)),
                          (sql.INSERT_INSTANCES, map(encode_instance, writes.inserted)),
                          (entity_sql.UPDATE_ENTITIES, map(entity_sql.encode_entity, writes.updated_entities)),
                          (entity_sql.INSERT_ENTITIES, map(entity_sql.encode_entity, writes.inserted_entities)),
                          (entity_sql.DELETE_ENTITIES, writes.deleted_entities),
                          (aside.COPY[Source.TASK], aside.copies(writes.aside, Source.TASK)),
                          (sql.DELETE_TASKS, writes.done_tasks),
                          (sql.SWEEP_UNCLAIMED, writes.unclaimed))
        tasks, task_rows = self._plan_tasks(writes)
        task_reply = self._send(sql.INSERT_TASKS, task_rows)
        self._send_sorted((aside.COPY[Source.MESSAGE], aside.copies(writes.aside, Source.MESSAGE)),
                          (sql.DELETE_MESSAGES, writes.consumed),
                          (sql.DROP_MESSAGES, writes.dropped),
                          (sql.SWEEP_MESSAGES, writes.swept))
        messages, message_rows = self._plan_messages(writes, read)
        message_reply = self._send(sql.INSERT_MESSAGES, message_rows)
        self._send_sorted((aside.COPY[Source.TIMER], aside.copies(writes.aside, Source.TIMER)),
                          (sql.DELETE_TIMERS, writes.fired),
                          (sql.DROP_TIMERS, writes.dropped_timers),
                          (sql.SWEEP_TIMERS, writes.swept_timers))
        timer_rows = [self._timer_row(timer, read) for timer in writes.timers]
        timer_reply = self._send(sql.INSERT_TIMERS, timer_rows)
        self._send(aside.SET_ASIDE, [aside.item_row(item, group.now) for item in writes.aside])
        self._send(sql.DELETE_HISTORY, writes.old_executions)
        self._send(sql.INSERT_HISTORY, writes.history)
        self._send(sql.DELETE_PAYLOADS, writes.old_executions)
        self._send(sql.INSERT_PAYLOADS, writes.payloads)
        # Behind the inserts, so that what was there before them is seen.
        ceilings = self._send(sql.CEILINGS, [(*key, group.epochs[key.partition]) for key in looks])
        return Sent(tasks, task_reply, messages, message_reply, timer_rows, timer_reply, looks, ceilings)

    def _plan_tasks(self, writes: Writes) -> tuple[list[tuple[NewActivity, bool]], list[Row]]:
        """Say which new activities are born claimed: those that somebody here takes, as long as there is room."""
        lanes, left = self._group.activity_room.lanes, list(self._group.activity_room.rooms)
        planned = []
        for task in writes.new_tasks:
            lane = lanes.get((task.name, task.version))
            mine = lane is not None and left[lane] > 0
            if lane is not None:
                left[lane] -= 1
            planned.append((task, mine))
        owner, token = self._group.host_id, self._group.claim_token
        return planned, [(*task.key, task.execution_id, task.task_id, task.name, task.version,
                          owner if mine else 0, token if mine else 0, task.event) for task, mine in planned]

    def _plan_messages(self, writes: Writes, read: Read) -> tuple[list[tuple[NewMessage, int]], list[Row]]:
        """Say which new messages this host holds. One for an instance that ends in this group is not written."""
        group, ended = self._group, set(writes.swept) - {child.key for child in writes.children}
        planned = []
        for message, enters in writes.messages:
            if message.key in ended:
                continue
            ours = message.key.partition in read.partitions and not group.alone
            held = group.epochs[message.key.partition] if ours and (enters or message.key in group.entering) else 0
            planned.append((message, held))
        return planned, [(*message.key, message.execution_id, int(message.kind), held, message.events)
                         for message, held in planned]

    def _timer_row(self, timer: NewTimer, read: Read) -> Row:
        group = self._group
        held = (timer.key.partition in read.partitions and timer.fire_at <= group.timer_horizon and not group.alone)
        return (*timer.key, timer.execution_id, int(timer.kind), timer.fire_at,
                group.epochs[timer.key.partition] if held else 0, timer.events)

    def _committed(self, kept: Kept, writes: Writes, read: Read, sent: "Sent") -> Committed:
        group = self._group
        entered, unheld = sent.entered()
        ceilings: dict[InstanceKey, int | None] = dict.fromkeys(sent.looks)
        ceilings.update({InstanceKey(partition, instance): seq for partition, instance, seq in sent.ceilings.rows})
        ours = {row.key for row in entered if row.kind is MessageKind.START}
        return Committed(
            outcomes=tuple(kept.outcomes), entered=entered, ceilings=ceilings,
            timers=sent.held_timers(writes.timers), activities=sent.born_claimed(group.claim_token),
            unclaimed_activities=any(not mine for _, mine in sent.tasks),
            children=tuple(child for child in writes.children if child.key in ours),
            unheld=unheld, lost_partitions=self._lost(read))


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent in the second flush and has to be matched with its replies: sequences come in list order."""

    tasks: list[tuple[NewActivity, bool]]
    task_reply: Reply
    messages: list[tuple[NewMessage, int]]
    message_reply: Reply
    timer_rows: list[Row]
    timer_reply: Reply
    looks: list[InstanceKey]
    ceilings: Reply

    def entered(self) -> tuple[tuple[QueueRow, ...], frozenset[InstanceKey]]:
        """Return the rows that this host holds now, and the instances that got rows which nobody holds."""
        rows, unheld = [], set()
        for seq, (message, held) in zip(_seqs(self.message_reply), self.messages, strict=True):
            if held:
                rows.append(QueueRow(seq, message.key, message.execution_id, message.kind, message.events))
            else:
                unheld.add(message.key)
        return tuple(rows), frozenset(unheld)

    def born_claimed(self, token: int) -> tuple[ActivityRow, ...]:
        """Return the new activity tasks that this host has claimed."""
        return tuple(ActivityRow(seq, task.key, task.execution_id, task.task_id, task.name, task.version, task.event,
                                 token)
                     for seq, (task, mine) in zip(_seqs(self.task_reply), self.tasks, strict=True) if mine)

    def held_timers(self, timers: list[NewTimer]) -> tuple[TimerRow, ...]:
        """Return the new timers that this host holds."""
        return tuple(TimerRow(seq, timer.key, timer.execution_id, timer.kind, timer.fire_at, timer.events)
                     for seq, timer, row in zip(_seqs(self.timer_reply), timers, self.timer_rows, strict=True)
                     if row[-2])


def _without(looks: Iterable[InstanceKey], ended: Iterable[InstanceKey]) -> list[InstanceKey]:
    gone = set(ended)
    return [key for key in looks if key not in gone]


def _fences(reply: Reply) -> dict[InstanceKey, Fence]:
    return {InstanceKey(partition, instance_id): Fence(version, Status(status), execution_id, generation)
            for partition, instance_id, version, status, execution_id, generation in reply.rows}


def _versions(reply: Reply) -> dict[InstanceKey, int]:
    return {InstanceKey(partition, instance_id): version for partition, instance_id, version in reply.rows}


def _tokens(reply: Reply) -> dict[tuple[int, int], int]:
    return {(partition, seq): token for partition, seq, token in reply.rows}


def _seqs(reply: Reply) -> list[Any]:
    return sorted(row[0] for row in reply.rows)
