"""Bugs to plant, one at a time: what the simulation has to find. Each is a substitution in the running program.

A bug is a function that says what to substitute: an object, the name of its attribute, and what stands there instead.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from sqlalchemy import delete, update

from durabletask_sql.dispatch import entities as dispatch_entities
from durabletask_sql.dispatch import owner
from durabletask_sql.dispatch.activities import Activities
from durabletask_sql.dispatch.owner import Owner
from durabletask_sql.model.checkpoints import COMMITTED, TurnCheckpoint
from durabletask_sql.model.creation import Decision
from durabletask_sql.model.messages import MessageKind
from durabletask_sql.partitions.instance import InstanceMemory
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.partitions.window import TimerWindow
from durabletask_sql.ports.committer import Pending
from durabletask_sql.ports.instances import Created
from durabletask_sql.storage import filtering, group, lease_statements, planning, purge, statements
from durabletask_sql.storage import load as storage_load
from durabletask_sql.storage.committer import SqlCommitter
from durabletask_sql.storage.dialect import Statement, keyed
from durabletask_sql.storage.instances import SqlInstances
from durabletask_sql.storage.sqlite import SqliteSession
from durabletask_sql.storage.tables import activity_queue, instances, timers
from durabletask_sql.turn import apply as turn_apply
from durabletask_sql.turn import completion, intake
from durabletask_sql.turn.entity import intake as entity_intake
from simulation.store import at_once

Substitution = tuple[Any, str, Any]
Bug = Callable[[], Iterable[Substitution]]

BUGS: dict[str, Bug] = {}


def _bug(name: str) -> Callable[[Bug], Bug]:
    def register(bug: Bug) -> Bug:
        BUGS[name] = bug
        return bug
    return register


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Run with a bug."""
    with ExitStack() as stack:
        for target, attribute, substitute in BUGS[name]():
            stack.enter_context(patch.object(target, attribute, substitute))
        yield


# Fences

@_bug("a group is committed whatever the epoch")
def _no_epoch():
    real = group.GroupAttempt._lock_and_read

    def read(self):
        return replace(real(self), partitions=frozenset(self._group.epochs))

    yield group.GroupAttempt, "_lock_and_read", read
    yield statements, "HOLD_PARTITIONS", replace(statements.HOLD_PARTITIONS, counted=False)


@_bug("a turn is committed whatever the row version, and whether or not what it consumes is there")
def _no_version():
    real = filtering._check_turn

    def check(item, read):
        there = read.plain.get(item.key)
        return real(item if there is None else replace(item, expected_version=there.row_version), read)

    def over(types):
        return Statement("instances", lambda v: update(instances).where(statements.by_key(instances, v)).values(
            {name: v.c[name] for name in types if name not in statements.KEYS}), types)

    yield filtering, "_check_turn", check
    yield statements, "UPDATE_INSTANCES", over(statements.UPDATE_INSTANCES.columns)
    yield statements, "UPDATE_TURNS", over(statements.UPDATE_TURNS.columns)
    yield statements, "DELETE_MESSAGES", statements.DROP_MESSAGES
    yield statements, "DELETE_TIMERS", statements.DROP_TIMERS


@_bug("a result is taken whatever its claim, and whether or not its task is there")
def _no_token():
    drop = Statement("activity_queue", lambda v: delete(activity_queue).where(keyed(activity_queue, v)),
                     statements.DELETE_TASKS.columns)
    yield filtering, "_check_task", lambda *_: COMMITTED
    yield statements, "DELETE_TASKS", drop


@_bug("a steal leaves the epoch as it was")
def _no_new_epoch():
    real = lease_statements.LeaseStatements._acquire

    def acquire(self, v):
        statement = real(self, v)
        return statement.values(epoch=lease_statements.partitions.c.epoch)

    yield lease_statements.LeaseStatements, "_acquire", acquire


@_bug("memory stays when a partition is lost, and is used when it comes back")
def _memory_stays():
    def drop(self, partition):
        self.epochs.pop(partition, None)

    def own(self, epochs):
        for partition, epoch in epochs.items():
            self.epochs[partition] = epoch
            self._messages.setdefault(partition, 0)

    yield Memory, "drop", drop
    yield Memory, "own", own


# What is in doubt

@_bug("an unknown outcome counts as a failure: the group is simply tried again")
def _unknown_is_failure():
    def unknown(self, submissions, _):
        self._pending[:0] = submissions

    yield Owner, "_unknown_outcome", unknown


@_bug("an unknown outcome counts as success")
def _unknown_is_success():
    def unknown(self, submissions, _):
        for submission in submissions:
            if isinstance(submission.item, TurnCheckpoint):
                self._memory.committed(submission.item)
            if not submission.done.done():
                submission.done.set_result(COMMITTED)

    yield Owner, "_unknown_outcome", unknown


@_bug("a result is acknowledged before it is committed")
def _early_result():
    def submit(self, item):
        self._ports.submit(item, None)
        done = asyncio.get_running_loop().create_future()
        done.set_result(COMMITTED)
        return done

    yield Activities, "_submit_result", submit


@_bug("a creation is acknowledged before it is committed")
def _early_creation():
    real = SqlInstances.create

    async def create(self, creation):
        before = await self.rows([creation.row.key])
        if before:
            return await real(self, creation)
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, lambda: at_once(real(self, creation)))
        return Created(Decision.CREATE, None, frozenset((creation.row.key,)))

    yield SqlInstances, "create", create


@_bug("one commit in fifty is rolled back and reported as done")
def _lost_commits():
    real, numbers = SqliteSession.commit, itertools.count(1)

    def commit(self):
        if next(numbers) % 50:
            real(self)
        else:
            self.rollback()
            self._turn.end()

    yield SqliteSession, "commit", commit


# Messages

@_bug("continue-as-new deletes what waits for the instance")
def _again_sweeps():
    real = planning._plan_turn

    def plan(found, item):
        real(found, item)
        if item.continued_from is not None:
            found.dropped += [(item.key.partition, seq) for seq in range(max(item.consumed, default=0) + 1,
                                                                        max(item.consumed, default=0) + 20)]

    yield planning, "_plan_turn", plan


@_bug("continue-as-new leaves what was carried over behind")
def _again_forgets():
    real = completion.continue_as_new

    def again(base, effects, taken, past, action):
        del action.completeOrchestration.carryoverEvents[:]
        return real(base, effects, taken, past, action)

    yield turn_apply, "continue_as_new", again


@_bug("a watermark says what is new")
def _watermark():
    real, marks = SqlCommitter.load_on, {}

    def load(self, session, wanted):
        loaded = real(self, session, wanted)
        fresh = {found.key for found in loaded.fresh}
        mark = marks.get(self, 0)
        kept = tuple(row for row in loaded.claimed if row.seq > mark or row.key in fresh)
        marks[self] = max((mark, *(row.seq for row in loaded.claimed)))
        return replace(loaded, claimed=kept)

    yield SqlCommitter, "load_on", load


@_bug("held rows stay held when the epoch changes")
def _still_held():
    def with_epochs(_, keys):
        return [(*key, 1) for key in keys]

    yield storage_load.LoadAttempt, "_with_epochs", with_epochs


@_bug("the poll finds nothing")
def _blind_poll():
    async def poll(*_):
        return Pending()

    yield SqlCommitter, "poll", poll


@_bug("a turn leaves the events that it took in the queue")
def _not_consumed():
    real = planning._plan_queues

    def plan(found, item):
        real(found, replace(item, consumed=item.consumed[:1]))

    yield planning, "_plan_queues", plan


@_bug("messages of other executions are taken")
def _old_executions():
    yield intake, "_split", lambda _row, rows: (list(rows), [])


@_bug("messages come in the order in which they entered memory")
def _unordered():
    def enter(self, row):
        if any(one.seq == row.seq for one in self.rows):
            return False
        self.rows.insert(0, row)
        self.size += len(row.events)
        self.startless_read = False
        return True

    yield InstanceMemory, "enter", enter


@_bug("the start row waits for its turn like any other")
def _start_not_first():
    def runnable(self):
        return sorted(self.rows, key=lambda row: row.seq)

    yield InstanceMemory, "runnable", runnable
    yield intake, "sorted", _as_they_are


@_bug("a ceiling does not matter")
def _no_ceiling():
    real, claims = InstanceMemory.runnable, owner.choose_claims

    def runnable(self):
        ceiling, self.ceiling = self.ceiling, None
        try:
            return real(self)
        finally:
            self.ceiling = ceiling

    yield InstanceMemory, "runnable", runnable
    yield Memory, "may_enter", lambda self, key, *_rest: key.partition in self.epochs
    yield owner, "choose_claims", lambda memory, *rest: tuple(
        key for key in claims(memory, *rest) if not memory.find(key).is_full)


@_bug("a group does not claim what waits for those that its messages go to")
def _no_claim():
    yield owner, "choose_claims", lambda *_: ()


def _as_they_are(rows, **_):
    return list(rows)


# Timers

@_bug("timers fire up to ten seconds early")
def _early_timers():
    real = TimerWindow.take_due
    yield TimerWindow, "take_due", lambda self, now: real(self, now + 10_000_000)


@_bug("a timer is deleted as soon as it is taken up")
def _deleted_timers():
    real = statements._claim_timers

    def build(v):
        claim = real(v)
        return delete(timers).where(*claim._where_criteria).returning(*statements._TIMER_ROW)

    yield statements, "CLAIM_TIMERS", Statement("timers", build)
    yield statements, "DELETE_TIMERS", statements.DROP_TIMERS


@_bug("a timer's own commit leaves it in the database")
def _timers_stay():
    real = planning._plan_queues
    yield planning, "_plan_queues", lambda found, item: real(found, replace(item, consumed_timers=()))


# What ends

@_bug("an instance that ends leaves its timers")
def _timers_outlive():
    real = planning._plan_turn

    def plan(found, item):
        real(found, item)
        found.swept_timers[:] = [key for key in found.swept_timers if key != item.key]

    yield planning, "_plan_turn", plan


@_bug("a purge leaves everything but the instance")
def _purge_leaves():
    yield purge, "sweep", lambda *_: None


@_bug("a termination releases no lock")
def _locks_outlive():
    yield completion, "_leave_sections", lambda _: []


@_bug("a recursive termination ends nothing below")
def _children_outlive():
    yield completion, "terminate_children", lambda *_: []


@_bug("a parent does not hear of a child that was ended without a worker")
def _silent_end():
    yield completion, "child_ended_notice", lambda *_: None


@_bug("the claims of dead hosts stay")
def _claims_outlive():
    real = lease_statements.LeaseStatements._release_tasks

    def release(self, v):
        statement = real(self, v)
        return statement.where(lease_statements.activity_queue.c.seq < 0)

    yield lease_statements.LeaseStatements, "_release_tasks", release


# Others

@_bug("a lock is granted while another holds it")
def _locks_granted():
    real = entity_intake.take

    def take(inbox, *rest):
        rows = [replace(row, kind=MessageKind.EVENT) if row.kind is MessageKind.AHEAD else row for row in inbox.rows]
        row = inbox.row if inbox.row is None else replace(inbox.row, lock=None)
        return real(replace(inbox, rows=rows, row=row), *rest)

    yield dispatch_entities, "take", take


@_bug("a task that was given back is forgotten")
def _abandoned_tasks():
    yield Activities, "_offer_again", lambda *_: None


@_bug("what a lost worker had is forgotten")
def _lost_work():
    yield Activities, "take_back", lambda *_: None
