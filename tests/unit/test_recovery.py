"""What the owner's memory forgets when its epochs change."""

from __future__ import annotations

import pytest

from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.messages import MessageKind, QueueRow
from durabletask_sql.model.status import Status
from durabletask_sql.partitions.lanes import Lanes
from durabletask_sql.partitions.limits import MemoryLimits
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.ports.committer import FreshInstance
from durabletask_sql.turn.intake import TurnLimits, take

KEY = InstanceKey(0, "one")


@pytest.fixture
def memory():
    """An instance whose turn is out at a worker."""
    memory = Memory(MemoryLimits(), Lanes(lambda _: "anybody"), Lanes(lambda _: "anybody"))
    memory.own({0: 1})
    row = InstanceRow(*KEY, "e1", 0, 1, "flow", None, Status.PENDING, 1, 1)
    memory.merge_fresh([FreshInstance(KEY, row, ())])
    memory.merge_rows([QueueRow(1, KEY, "e1", MessageKind.START, b"\x1a\x00")])
    mem = memory.find(KEY)
    mem.turn = take(mem.row, mem.runnable(), mem.due(), 1, TurnLimits())
    return memory


def test_a_turn_that_is_out_counts_no_more_after_its_memory_was_dropped(memory):
    """Its answer would be lost against what was committed meanwhile, and take what is known of the instance with it."""
    before = memory.find(KEY)
    memory.own({0: 2})
    assert memory.find(KEY) is None
    assert before.turn is None


def test_a_turn_that_is_out_stays_as_long_as_its_epoch(memory):
    memory.own({0: 1})
    assert memory.find(KEY).turn is not None
