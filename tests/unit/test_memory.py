"""The owner's memory asks for what it needs, and stops asking once it has it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from durabletask_sql.dispatch.merging import Merger
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.messages import MessageKind, QueueRow, TimerRow
from durabletask_sql.model.status import Status
from durabletask_sql.partitions.lanes import Lanes
from durabletask_sql.partitions.limits import MemoryLimits
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.partitions.resident import PROVISIONAL
from durabletask_sql.partitions.speculation import Speculation
from durabletask_sql.ports.committer import Committed, FreshInstance, Group, Load, Loaded

KEY = InstanceKey(0, "one")
EPOCHS = {0: 1}


def row_of(execution):
    return InstanceRow(0, "one", execution, 0, 1, "flow", None, Status.RUNNING, 0, 0, history_count=1)


def owning():
    """A memory that owns a partition and has asked for its first scan, and what applies replies to it."""
    memory = Memory(MemoryLimits(), Lanes(lambda _: "anybody"), Lanes(lambda _: "anybody"))
    memory.own(EPOCHS)
    memory.take_wanted()
    return memory, Merger(memory, Speculation(memory))


@pytest.mark.parametrize(("found", "execution"), [(None, None), (row_of("new"), "old")],
                         ids=["nobody", "an older execution"])
def test_a_message_for(found, execution):
    """It is read afresh once, to be sure, and then handed out: to be discarded."""
    memory = Memory(MemoryLimits(), Lanes(lambda _: "anybody"), Lanes(lambda _: "anybody"))
    memory.own(EPOCHS)
    memory.take_wanted()  # the scan that follows owning
    late = QueueRow(7, KEY, execution, MessageKind.EVENT, b"")
    memory.merge_rows([late])
    wanted = memory.take_wanted()
    assert wanted.fresh == (KEY,)
    Merger(memory, Speculation(memory)).merge_load(
        Load(EPOCHS, 1, fresh=wanted.fresh),
        Loaded(claimed=(late,), ceilings={KEY: None}, fresh=(FreshInstance(KEY, found, ()),)))
    assert not memory.wants_anything()
    assert memory.ready.take(lambda group: group)[0].key == KEY


def test_idle_instances_make_room_as_soon_as_no_other_could_enter():
    """Exactly as many as there may be: were they to stay, nobody else would ever be looked for."""
    memory = Memory(MemoryLimits(instances=2), Lanes(lambda _: "anybody"), Lanes(lambda _: "anybody"))
    memory.own(EPOCHS)
    memory.take_wanted()
    keys = [InstanceKey(0, name) for name in ("one", "two")]
    memory.merge_fresh(FreshInstance(key, replace(row_of("e"), instance_id=key.instance_id), ()) for key in keys)
    memory.settle_load(keys)
    other = InstanceKey(0, "three")
    memory.wake([other])
    assert memory.wants_anything()
    assert memory.take_wanted().fresh == (other,)


def test_what_others_wrote_for_a_new_instance_before_memory_heard_of_it_is_claimed():
    """Its creation may be read, and answered with an event, before the reply to its commit is merged."""
    memory = Memory(MemoryLimits(), Lanes(lambda _: "anybody"), Lanes(lambda _: "anybody"))
    memory.own(EPOCHS)
    memory.take_wanted()
    memory.wake([KEY])
    memory.merge_child(row_of("e"))
    wanted = memory.take_wanted()
    assert (wanted.claims, wanted.fresh) == ((KEY,), ())


def test_what_a_group_saw_to_wait_is_claimed_and_goes_before_what_the_group_wrote():
    memory, merger = owning()
    memory.merge_fresh([FreshInstance(KEY, row_of("e"), ())])
    older, newer = (QueueRow(seq, KEY, None, MessageKind.EVENT, b"") for seq in (7, 8))
    merger.merge(Group((), EPOCHS, 0, 1), Committed((), entered=(newer,), ceilings={KEY: older.seq}), ())
    assert memory.instance(KEY).runnable() == []
    assert memory.take_wanted().claims == (KEY,)
    merger.merge_load(Load(EPOCHS, 1, claims=(KEY,)), Loaded(claimed=(older,), ceilings={KEY: None}))
    assert memory.instance(KEY).runnable() == [older, newer]
    assert not memory.wants_anything()


def test_an_instance_that_leaves_before_its_start_is_due_leaves_nothing_behind():
    memory = Memory(MemoryLimits(), Lanes(lambda _: "anybody"), Lanes(lambda _: "anybody"))
    memory.own(EPOCHS)
    pending = replace(row_of("e"), status=Status.PENDING, history_count=0, scheduled_at=9)
    memory.merge_fresh([FreshInstance(KEY, pending, ())])
    memory.merge_rows([QueueRow(7, KEY, None, MessageKind.EVENT, b"")], read=(KEY,))
    memory.waits_for_start(memory.instance(KEY))
    assert list(memory.early) == [KEY]
    memory.lose(KEY)  # it was purged
    memory.take_wanted()
    memory.merge_fresh([FreshInstance(KEY, None, ())])
    memory.settle_load([KEY])
    assert memory.find(KEY) is None
    assert not memory.early


def test_a_timer_that_comes_due_while_its_instance_is_read_afresh_fires_once():
    """The read may have it as well: it was still there."""
    memory = Memory(MemoryLimits(), Lanes(lambda _: "anybody"), Lanes(lambda _: "anybody"))
    memory.own(EPOCHS)
    memory.take_wanted()
    merger, fresh, timer = Merger(memory, Speculation(memory)), FreshInstance(KEY, row_of("e"), ()), TimerRow(
        9, KEY, "e", MessageKind.EVENT, 5, b"")

    def read(*timers):
        merger.merge_load(Load(EPOCHS, 1, fresh=memory.take_wanted().fresh),
                          Loaded(ceilings={KEY: None}, fresh=(fresh,), timers=timers))

    memory.wake([KEY])
    read(timer)
    memory.merge_rows([QueueRow(7, KEY, "an older one", MessageKind.EVENT, b"")])  # somebody's late result
    wanted = memory.take_wanted()
    assert wanted.fresh == (KEY,)
    assert memory.take_due(5)  # while that is being read
    merger.merge_load(Load(EPOCHS, 1, fresh=wanted.fresh), Loaded(ceilings={KEY: None}, fresh=(fresh,), timers=(timer,)))
    assert not memory.take_due(5)
    read(timer)
    assert memory.instance(KEY).timers == [timer]
    assert not memory.take_due(5)


@pytest.mark.parametrize("there", [True, False], ids=["in memory", "not in memory"])
def test_what_was_read_before_an_instance_was_replaced_leaves_before_its_next_turn(there):
    """The replacement is heard of while the load is out, whose reply is of before."""
    memory, merger = owning()
    before, after, later = (QueueRow(seq, KEY, None, MessageKind.EVENT, b"") for seq in (7, 8, 9))
    memory.wake([KEY])
    if there:
        memory.take_wanted()
        memory.merge_fresh([FreshInstance(KEY, row_of("e"), ())])
        memory.wake([KEY])
    assert (memory.take_wanted().claims == (KEY,)) is there
    memory.lose(KEY)
    merger.merge_load(Load(EPOCHS, 1), Loaded(claimed=(before,), ceilings={KEY: None},
                                              fresh=() if there else (FreshInstance(KEY, row_of("e"), ()),)))
    assert not memory.ready
    assert memory.take_wanted().fresh == (KEY,)
    memory.merge_rows([later])  # a group wrote it after the read
    merger.merge_load(Load(EPOCHS, 1), Loaded(claimed=(after,), ceilings={KEY: None},
                                              fresh=(FreshInstance(KEY, row_of("f"), ()),)))
    mem = memory.instance(KEY)
    assert (mem.row.execution_id, mem.rows) == ("f", [after, later])
    assert memory.messages[0] == 2
    assert memory.ready


def test_a_message_whose_commit_is_in_flight_stays_when_its_instance_is_read_afresh():
    memory, merger = owning()
    memory.merge_fresh([FreshInstance(KEY, row_of("e"), ())])
    early = QueueRow(PROVISIONAL + 1, KEY, None, MessageKind.EVENT, b"")
    memory.merge_rows([early])
    memory.read_afresh(KEY)
    merger.merge_load(Load(EPOCHS, 1, fresh=memory.take_wanted().fresh),
                      Loaded(ceilings={KEY: None}, fresh=(FreshInstance(KEY, row_of("e"), ()),)))
    assert memory.instance(KEY).rows == [early]
