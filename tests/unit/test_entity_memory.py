"""How memory keeps entities: what waits behind a lock is not kept, and nothing is forgotten."""

from __future__ import annotations

from dataclasses import replace

import pytest

from durabletask_sql.model.checkpoints import EntityCheckpoint
from durabletask_sql.partitions.lanes import Lanes
from durabletask_sql.partitions.limits import MemoryLimits
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.ports.committer import FreshEntity
from entity_rows import ANN, E, call, delayed, entity, lock, release, signal


@pytest.fixture
def memory():
    memory = Memory(MemoryLimits(), Lanes(lambda _: "anybody"), Lanes(lambda _: "anybody"))
    memory.own(dict.fromkeys(range(4), 1))
    memory.take_wanted()
    return memory


def read(memory, row=None, rows=(), hidden=None, ceiling=None):
    """What a fresh read of the entity brings."""
    memory.take_wanted()
    memory.merge_fresh([FreshEntity(E, row, hidden)])
    memory.merge_rows(rows)
    memory.merge_ceilings({E: ceiling})
    memory.settle_load([E])
    return memory.find(E)


def next_entity(memory):
    """The entity whose next step would be looked for."""
    found = memory.entities.take(lambda group: group)
    return found[0] if found is not None else None


def seqs(mem):
    return [row.seq for row in mem.rows]


def step(memory, mem, *consumed, row=None):
    mem.turn = "out"
    version = mem.row.row_version if mem.row is not None else 0
    memory.stepped(EntityCheckpoint(E, version, row, consumed))
    return memory.find(E)


def wanted(memory):
    found = memory.take_wanted()
    return found.claims, found.fresh


def test_an_entity_without_a_row_runs(memory):
    memory.merge_rows([signal(1)])
    assert wanted(memory) == ((), (E,))
    mem = read(memory)
    assert next_entity(memory) is mem
    assert len(memory.ready) == 0


def test_an_entity_that_is_gone_leaves_memory(memory):
    mem = read(memory, rows=[signal(1)])
    assert step(memory, mem, 1) is None
    assert len(memory) == 0


def test_what_waits_behind_a_lock_leaves_memory_and_comes_back(memory):
    mem = read(memory, rows=[lock(1), signal(2), signal(3)])
    mem = step(memory, mem, 1, row=entity(lock=ANN))
    assert (seqs(mem), mem.hidden, mem.can_run) == ([], 2, False)
    assert memory.room(E.partition) == memory.limits.partition_messages
    memory.merge_rows([signal(4), call(5, ahead=True)])
    assert (seqs(mem), next_entity(memory)) == ([5], mem)
    mem = step(memory, mem, 5, row=entity(lock=ANN, version=4))
    memory.merge_rows([release(6)])
    mem = step(memory, mem, 6, row=entity(version=5))
    assert wanted(memory) == ((), (E,))
    mem = read(memory, entity(version=5), [signal(2), signal(3), signal(4)])
    assert (seqs(mem), mem.hidden, mem.ceiling, mem.can_run) == ([2, 3, 4], None, None, True)


def test_a_lock_that_nobody_waits_behind_needs_no_second_read(memory):
    mem = read(memory, rows=[lock(1)])
    mem = step(memory, mem, 1, row=entity(state=None, lock=ANN))
    memory.merge_rows([release(2)])
    assert step(memory, mem, 2) is None
    assert wanted(memory) == ((), ())


def test_a_fresh_read_of_a_locked_entity_keeps_only_what_can_run(memory):
    mem = read(memory, entity(lock=ANN), [signal(1), signal(2), call(3, ahead=True)])
    assert (seqs(mem), mem.hidden, mem.ceiling) == ([3], 1, 1)


def test_messages_for_a_locked_entity_are_held_at_once_and_its_scan_goes_on(memory):
    mem = read(memory, entity(lock=ANN), [signal(1)])
    assert memory.may_enter(E, 1, 10)
    assert E not in memory.ceilings.full()
    assert memory.ceilings.stuck() == []
    assert memory.find(E).known
    assert not memory.find(E).stale
    memory.merge_ceilings({E: None})
    assert mem.ceiling == 1


def test_a_long_queue_is_read_in_shares_without_overtaking(memory):
    mem = read(memory, entity(), [signal(1), signal(2)], hidden=3)
    assert (mem.ceiling, [row.seq for row in mem.inbox().rows], mem.inbox().bound) == (3, [1, 2], 3)
    memory.merge_rows([signal(9)])
    assert seqs(mem) == [1, 2]
    mem = step(memory, mem, 1, row=entity(version=4))
    assert wanted(memory) == ((), ())
    step(memory, mem, 2, row=entity(version=5))
    assert wanted(memory) == ((), (E,))
    mem = read(memory, entity(version=5), [signal(3), signal(9)])
    assert (seqs(mem), mem.ceiling) == ([3, 9], None)


def test_a_pending_cancellation_has_the_rest_read(memory):
    cancel = release(9, lock_set=(E.instance_id,))
    mem = read(memory, entity(), [signal(1), cancel], hidden=3)
    mem = step(memory, mem, 1, row=entity(version=4))
    mem.idle = True
    memory.consider(mem)
    assert wanted(memory) == ((), (E,))


def test_nothing_to_do_is_not_looked_at_again_until_something_changes(memory):
    mem = read(memory, entity(lock=ANN), [call(3, ahead=True)])
    mem.idle = True
    memory.consider(mem)
    assert next_entity(memory) is None
    memory.merge_rows([release(4)])
    assert next_entity(memory) is mem


def test_due_signals_wait_for_the_lock(memory):
    mem = read(memory, entity(lock=ANN))
    memory.merge_timers([delayed(1, 5)])
    memory.take_due(6)
    memory.take_wanted()
    memory.settle_load([])
    assert (len(mem.timers), mem.can_run) == (1, False)
    memory.merge_rows([release(2)])
    mem = step(memory, mem, 2, row=entity(version=4))
    assert mem.can_run


def test_a_lost_fence_has_everything_read_again(memory):
    mem = read(memory, entity(lock=ANN), [signal(1), call(3, ahead=True)])
    memory.lose(E)
    assert (seqs(mem), mem.hidden, mem.known) == ([], None, False)
    assert wanted(memory) == ((), (E,))


def test_idle_entities_leave_when_there_are_too_many(memory):
    memory.limits = replace(memory.limits, history_bytes=10)
    mem = read(memory, entity(state="x" * 100), [signal(1)])
    assert step(memory, mem, 1, row=entity(state="x" * 100, version=4)) is None


def test_a_locked_entity_may_leave_and_is_read_afresh_for_its_release(memory):
    memory.limits = replace(memory.limits, history_bytes=10)
    mem = read(memory, entity(), [lock(1), signal(2)])
    assert step(memory, mem, 1, row=entity(state="x" * 100, version=4, lock=ANN)) is None
    memory.merge_rows([release(3)])
    assert wanted(memory) == ((), (E,))


def test_signals_that_are_due_do_not_keep_a_locked_entity_in_memory(memory):
    mem = read(memory, entity(), [lock(1)])
    step(memory, mem, 1, row=entity(version=4, lock=ANN))
    memory.merge_timers([delayed(2, 5)])
    assert memory.take_due(1 << 60)
    memory.take_wanted()
    memory.limits = replace(memory.limits, instances=1)
    memory.settle_load([])
    assert memory.find(E) is None
    memory.merge_rows([release(3)])
    assert wanted(memory) == ((), (E,))


def test_a_partition_that_is_lost_takes_its_entities_along(memory):
    read(memory, entity(), [signal(1)])
    memory.drop(E.partition)
    assert (memory.find(E), next_entity(memory)) == (None, None)

