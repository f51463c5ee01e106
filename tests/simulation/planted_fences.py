"""Planted bugs: fences that do not hold, and outcomes in doubt."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

from sqlalchemy import delete, update

from durabletask_sql.dispatch.activities import Activities
from durabletask_sql.dispatch.owner import Owner
from durabletask_sql.model.checkpoints import COMMITTED, TurnCheckpoint
from durabletask_sql.model.creation import Decision
from durabletask_sql.partitions import liveness
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.ports.instances import Created
from durabletask_sql.storage import filtering, group, lease_statements, statements
from durabletask_sql.storage.dialect import Statement, keyed
from durabletask_sql.storage.instances import SqlInstances
from durabletask_sql.storage.sqlite import SqliteSession
from durabletask_sql.storage.tables import activity_queue, instances
from simulation.planting import bug
from simulation.store import at_once

# Fences

@bug("a group is committed whatever the epoch")
def _no_epoch():
    real = group.GroupAttempt._lock_and_read

    def read(self):
        return replace(real(self), partitions=frozenset(self._group.epochs))

    yield group.GroupAttempt, "_lock_and_read", read
    yield statements, "HOLD_PARTITIONS", replace(statements.HOLD_PARTITIONS, counted=False)


@bug("a turn is committed whatever the row version, and whether or not what it consumes is there")
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


@bug("a result is taken whatever its claim, and whether or not its task is there")
def _no_token():
    drop = Statement("activity_queue", lambda v: delete(activity_queue).where(keyed(activity_queue, v)),
                     statements.DELETE_TASKS.columns)
    yield filtering, "_check_task", lambda *_: COMMITTED
    yield statements, "DELETE_TASKS", drop


@bug("a steal leaves the epoch as it was")
def _no_new_epoch():
    real = lease_statements.ACQUIRE
    yield lease_statements, "ACQUIRE", replace(
        real, build=lambda v: real.build(v).values(epoch=lease_statements.partitions.c.epoch))


@bug("memory stays when a partition is lost, and is used when it comes back")
def _memory_stays():
    def drop(self, partition):
        self.epochs.pop(partition, None)

    def own(self, epochs):
        for partition, epoch in epochs.items():
            self.epochs[partition] = epoch
            self._messages.setdefault(partition, 0)

    yield Memory, "drop", drop
    yield Memory, "own", own


@bug("a lease lasts for as long as the database's clock says, however that was set")
def _endless_lease():
    def seconds(heartbeat, now, **_):
        return (heartbeat.expires_at - now) / liveness.MICROSECONDS

    yield liveness, "_seconds", seconds


# What is in doubt

@bug("an unknown outcome counts as a failure: the group is simply tried again")
def _unknown_is_failure():
    def unknown(self, submissions, _):
        self._pending[:0] = submissions

    yield Owner, "_unknown_outcome", unknown


@bug("an unknown outcome counts as success")
def _unknown_is_success():
    def unknown(self, submissions, _):
        for submission in submissions:
            if isinstance(submission.item, TurnCheckpoint):
                self._memory.committed(submission.item)
            if not submission.done.done():
                submission.done.set_result(COMMITTED)

    yield Owner, "_unknown_outcome", unknown


@bug("a result is acknowledged before it is committed")
def _early_result():
    def submit(self, item):
        self._ports.submit(item, None)
        done = asyncio.get_running_loop().create_future()
        done.set_result(COMMITTED)
        return done

    yield Activities, "_submit_result", submit


@bug("a creation is acknowledged before it is committed")
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


@bug("one commit in fifty is rolled back and reported as done")
def _lost_commits():
    real, numbers = SqliteSession.commit, itertools.count(1)

    def commit(self):
        if next(numbers) % 50:
            real(self)
        else:
            self.rollback()
            self._turn.end()

    yield SqliteSession, "commit", commit
