"""Which items make up a group: the oldest that fit, in their order, and a large one alone."""

from __future__ import annotations

import pytest

from durabletask_sql.dispatch.grouping import MAX_BYTES, MAX_ITEMS, Submission, take_group
from durabletask_sql.model.checkpoints import ActivityCompletion
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import MessageKind, NewMessage

KEY = InstanceKey(0, "one")


def submission(size):
    return Submission(ActivityCompletion(KEY, 1, 1, NewMessage(KEY, None, MessageKind.EVENT, bytes(size))), done=None)


@pytest.mark.parametrize(("sizes", "groups"), [
    ([1, 1, 1], [3]),
    ([MAX_BYTES + 1], [1]),
    ([1, MAX_BYTES + 1, 1], [1, 1, 1]),
    ([MAX_BYTES // 2, MAX_BYTES // 2, 1], [2, 1]),
    ([1] * (MAX_ITEMS + 1), [MAX_ITEMS, 1]),
])
def test_groups_are_bounded_and_keep_the_order(sizes, groups):
    pending = [submission(size) for size in sizes]
    order, taken = list(pending), []
    while pending:
        taken.append(take_group(pending))
    assert [len(group) for group in taken] == groups
    assert [one for group in taken for one in group] == order
