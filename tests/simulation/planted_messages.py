"""Planted bugs: messages, timers, what outlives its owner, and work that is forgotten."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import delete

from durabletask_sql.dispatch import entities as dispatch_entities
from durabletask_sql.dispatch import owner
from durabletask_sql.dispatch.activities import Activities
from durabletask_sql.model.messages import MessageKind
from durabletask_sql.partitions.instance import InstanceMemory
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.partitions.window import TimerWindow
from durabletask_sql.ports.committer import Pending
from durabletask_sql.storage import lease_statements, planning, purge, statements
from durabletask_sql.storage import load as storage_load
from durabletask_sql.storage.committer import SqlCommitter
from durabletask_sql.storage.dialect import Statement
from durabletask_sql.storage.tables import timers
from durabletask_sql.turn import apply as turn_apply
from durabletask_sql.turn import completion, intake
from durabletask_sql.turn.entity import intake as entity_intake
from simulation.planting import bug

# Messages

@bug("continue-as-new deletes what waits for the instance")
def _again_sweeps():
    real = planning._plan_turn

    def plan(found, item):
        real(found, item)
        if item.continued_from is not None:
            found.dropped += [(item.key.partition, seq) for seq in range(max(item.consumed, default=0) + 1,
                                                                        max(item.consumed, default=0) + 20)]

    yield planning, "_plan_turn", plan


@bug("continue-as-new leaves what was carried over behind")
def _again_forgets():
    real = completion.continue_as_new

    def again(base, effects, taken, past, action):
        del action.completeOrchestration.carryoverEvents[:]
        return real(base, effects, taken, past, action)

    yield turn_apply, "continue_as_new", again


@bug("a watermark says what is new")
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


@bug("held rows stay held when the epoch changes")
def _still_held():
    def with_epochs(_, keys):
        return [(*key, 1) for key in keys]

    yield storage_load.LoadAttempt, "_with_epochs", with_epochs


@bug("the poll finds nothing")
def _blind_poll():
    async def poll(*_):
        return Pending()

    yield SqlCommitter, "poll", poll


@bug("a turn leaves the events that it took in the queue")
def _not_consumed():
    real = planning._plan_queues

    def plan(found, item):
        real(found, replace(item, consumed=item.consumed[:1]))

    yield planning, "_plan_queues", plan


@bug("messages of other executions are taken")
def _old_executions():
    yield intake, "_split", lambda _row, rows: (list(rows), [])


@bug("messages come in the order in which they entered memory")
def _unordered():
    def enter(self, row):
        if any(one.seq == row.seq for one in self.rows):
            return False
        self.rows.insert(0, row)
        self.size += len(row.events)
        self.startless_read = False
        return True

    yield InstanceMemory, "enter", enter


@bug("the start row waits for its turn like any other")
def _start_not_first():
    def runnable(self):
        return sorted(self.rows, key=lambda row: row.seq)

    yield InstanceMemory, "runnable", runnable
    yield intake, "sorted", _as_they_are


@bug("a ceiling does not matter")
def _no_ceiling():
    real, looks = InstanceMemory.runnable, owner.choose_looks

    def runnable(self):
        ceiling, self.ceiling = self.ceiling, None
        try:
            return real(self)
        finally:
            self.ceiling = ceiling

    yield InstanceMemory, "runnable", runnable
    yield Memory, "may_enter", lambda self, key, *_rest: key.partition in self.epochs
    yield owner, "choose_looks", lambda memory, *rest: tuple(
        key for key in looks(memory, *rest) if not memory.find(key).is_full)


@bug("a group does not look whether something waits for those that its messages go to")
def _no_look():
    yield owner, "choose_looks", lambda *_: ()


def _as_they_are(rows, **_):
    return list(rows)


# Timers

@bug("timers fire up to ten seconds early")
def _early_timers():
    real = TimerWindow.take_due
    yield TimerWindow, "take_due", lambda self, now: real(self, now + 10_000_000)


@bug("a timer is deleted as soon as it is taken up")
def _deleted_timers():
    real = statements._claim_timers

    def build(v):
        claim = real(v)
        return delete(timers).where(*claim._where_criteria).returning(*statements._TIMER_ROW)

    yield statements, "CLAIM_TIMERS", Statement("timers", build)
    yield statements, "DELETE_TIMERS", statements.DROP_TIMERS


@bug("a timer's own commit leaves it in the database")
def _timers_stay():
    real = planning._plan_queues
    yield planning, "_plan_queues", lambda found, item: real(found, replace(item, consumed_timers=()))


# What ends

@bug("an instance that ends leaves its timers")
def _timers_outlive():
    real = planning._plan_turn

    def plan(found, item):
        real(found, item)
        found.swept_timers[:] = [key for key in found.swept_timers if key != item.key]

    yield planning, "_plan_turn", plan


@bug("a purge leaves everything but the instance")
def _purge_leaves():
    yield purge, "sweep", lambda *_: None


@bug("a termination releases no lock")
def _locks_outlive():
    yield completion, "_leave_sections", lambda _: []


@bug("a recursive termination ends nothing below")
def _children_outlive():
    yield completion, "terminate_children", lambda *_: []


@bug("a parent does not hear of a child that was ended without a worker")
def _silent_end():
    yield completion, "child_ended_notice", lambda *_: None


@bug("the claims of dead hosts stay")
def _claims_outlive():
    real = lease_statements.RELEASE_TASKS
    yield lease_statements, "RELEASE_TASKS", replace(
        real, build=lambda v: real.build(v).where(lease_statements.activity_queue.c.seq < 0))


# Others

@bug("a lock is granted while another holds it")
def _locks_granted():
    real = entity_intake.take

    def take(inbox, *rest):
        rows = [replace(row, kind=MessageKind.EVENT) if row.kind is MessageKind.AHEAD else row for row in inbox.rows]
        row = inbox.row if inbox.row is None else replace(inbox.row, lock=None)
        return real(replace(inbox, rows=rows, row=row), *rest)

    yield dispatch_entities, "take", take


@bug("a task that was given back is forgotten")
def _abandoned_tasks():
    yield Activities, "_offer_again", lambda *_: None


@bug("what a lost worker had is forgotten")
def _lost_work():
    yield Activities, "take_back", lambda *_: None
