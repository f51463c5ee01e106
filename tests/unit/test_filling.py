"""Large texts enter memory when their instance is about to run, as many as fit, and leave with it."""

from __future__ import annotations

from dataclasses import replace

from durabletask_sql.model.checkpoints import HistoryAppend, TurnCheckpoint
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.messages import MessageKind, QueueRow
from durabletask_sql.model.status import Status
from durabletask_sql.partitions.lanes import Lanes
from durabletask_sql.partitions.limits import MemoryLimits
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.ports.committer import FreshInstance
from durabletask_sql.protocol import events
from durabletask_sql.protocol.framing import frame
from durabletask_sql.protocol.texts import take_out
from durabletask_sql.turn.intake import Intake

SIZE = 1000


def memory(limit=2 * SIZE):
    found = Memory(MemoryLimits(history_bytes=limit), Lanes(lambda _: "anybody"), Lanes(lambda _: "anybody"))
    found.own({0: 1})
    return found


def next_ready(found):
    """The instance that would run next, as dispatch takes it: one that lacks its texts asks for them first."""
    while (taken := found.ready.take(lambda group: group)) is not None:
        if not taken[0].refs:
            return taken[0]
        found.filling.want(taken[0])
    return None


def row_of(name, execution="e"):
    return InstanceRow(0, name, execution, 0, 1, "flow", None, Status.RUNNING, 0, 0, history_count=1)


def fresh(name, execution="e"):
    taken = take_out(frame(events.task_completed(1, 1, "x" * SIZE)), SIZE, 0)
    return FreshInstance(InstanceKey(0, name), row_of(name, execution), (b"small", taken.events), {1: taken.refs})


def message(name, seq):
    return QueueRow(seq, InstanceKey(0, name), None, MessageKind.EVENT, b"")


def load(found, *names):
    found.merge_fresh(fresh(name) for name in names)
    found.merge_rows(message(name, seq) for seq, name in enumerate(names, 1))


def taken_names(found):
    return [hollow.key.instance_id for hollow in found.filling.take()]


def filled(found, hollow):
    found.filled(hollow, (b"small", b"y" * SIZE))


def run(found, name, *, more=False):
    """Hand out the turn of an instance and commit it."""
    mem = next_ready(found)
    assert mem.key.instance_id == name
    mem.turn = Intake(runs=True, consumed=tuple(row.seq for row in mem.rows[:1] if more) or tuple(
        row.seq for row in mem.rows))
    found.committed(TurnCheckpoint(1, replace(mem.row, history_count=2), consumed=mem.turn.consumed,
                                   history=HistoryAppend("e", 1, 1, b"more")))
    return mem


def test_a_hollow_instance_runs_only_with_its_texts():
    found = memory()
    load(found, "one")
    assert next_ready(found) is None
    hollow, = found.filling.take()
    assert (hollow.parts[0], hollow.text_bytes, hollow.execution_id) == (b"small", SIZE, "e")
    assert next_ready(found) is None
    assert found.filling.take() == []
    filled(found, hollow)
    assert run(found, "one").history == [b"small", b"y" * SIZE, b"more"]


def test_an_instance_that_cannot_run_gets_no_texts():
    found = memory()
    found.merge_fresh([fresh("one")])
    assert next_ready(found) is None
    assert not found.filling.has_work()


def test_as_many_are_filled_as_fit_and_the_next_when_one_is_idle():
    found = memory(2 * SIZE)
    load(found, "one", "two", "three")
    assert next_ready(found) is None
    first, second = found.filling.take()
    assert not found.filling.has_work()
    filled(found, first)
    filled(found, second)
    run(found, "one")
    assert taken_names(found) == ["three"]


def test_an_instance_with_more_messages_keeps_its_texts():
    found = memory(SIZE)
    load(found, "one", "two")
    found.merge_rows([message("one", 9)])
    assert next_ready(found) is None
    hollow, = found.filling.take()
    filled(found, hollow)
    run(found, "one", more=True)
    assert not found.filling.has_work()
    run(found, "one")
    assert taken_names(found) == ["two"]


def test_one_that_is_larger_than_the_limit_runs_alone():
    found = memory(SIZE // 2)
    load(found, "one", "two")
    assert next_ready(found) is None
    hollow, = found.filling.take()
    filled(found, hollow)
    run(found, "one")
    assert taken_names(found) == ["two"]


def test_texts_that_are_gone_mean_a_fresh_read():
    found = memory()
    load(found, "one")
    assert next_ready(found) is None
    hollow, = found.filling.take()
    found.filled(hollow, None)
    assert found.take_wanted().fresh == (hollow.key,)
    assert next_ready(found) is None


def test_texts_of_an_execution_that_was_replaced_meanwhile_are_dropped():
    found = memory(SIZE)
    load(found, "one", "two")
    assert next_ready(found) is None
    old, = found.filling.take()
    found.merge_fresh([fresh("one", "next")])
    filled(found, old)
    assert found.find(old.key).refs
    assert taken_names(found) == ["two"]
    assert next_ready(found) is None  # asks for the texts of the new execution
    found.lose(InstanceKey(0, "two"))
    new, = found.filling.take()
    assert new.execution_id == "next"


def test_a_partition_that_goes_takes_what_is_wanted_along():
    found = memory(SIZE)
    load(found, "one", "two")
    assert next_ready(found) is None
    hollow, = found.filling.take()
    found.drop(0)
    filled(found, hollow)
    assert len(found) == 0
    assert found.filling.take() == []


def test_history_that_was_filled_counts_and_makes_idle_instances_leave():
    found = memory(2 * SIZE)
    load(found, "one", "two")
    assert next_ready(found) is None
    for hollow in found.filling.take():
        filled(found, hollow)
    run(found, "one")
    run(found, "two")
    assert len(found) == 1  # both together are over the limit
