"""Tokens of activity tasks: what is not one names nothing, whatever a worker sends."""

from __future__ import annotations

import pytest

from durabletask_sql.dispatch.results import parse_activity_token


def test_a_token_names_its_partition_sequence_and_claim():
    assert parse_activity_token("activity:3:0:17:1f:5", 3) == (0, 17, 0x1F)
    assert parse_activity_token(f"activity:3:0:{2**63 - 1}:{2**63 - 1:x}:5", 3) == (0, 2**63 - 1, 2**63 - 1)


@pytest.mark.parametrize("token", [
    "", "turn:3:1f:5", "activity:4:0:17:1f:5", "activity:3:0:17:1f", "activity:3:0:17:1f:5:6", "activity:3:0:-17:1f:5",
    "activity:3:0:1_7:1f:5", "activity:3:0:\u0663:1f:5", "activity:3:0:17:1F:5", "activity:3:0:17:1f:5\n", "activity:::::",
    f"activity:3:0:{2**63}:1f:5", f"activity:3:{2**63}:17:1f:5", f"activity:3:0:17:{2**63:x}:5", "activity:" + "9" * 5000 + ":0:1:1:1",
])
def test_anything_else_names_nothing(token):
    assert parse_activity_token(token, 3) is None
