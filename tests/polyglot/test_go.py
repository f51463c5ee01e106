"""What the Go SDK shows beyond what every language does."""

from __future__ import annotations

import pytest

from polyglot.languages import completed, terminated

pytestmark = pytest.mark.go


@pytest.fixture
def seen(scenarios):
    return scenarios("go")


def test_terminate_takes_the_children_along_when_recursive(seen):
    assert seen["terminate_recursively"] == [terminated("all of you")] * 3


def test_terminate_leaves_the_children_alone_when_not_recursive(seen):
    assert seen["terminate_alone"] == {"ended": terminated(None), "before": "RUNNING", "child": completed([1])}


def test_children_without_an_id_get_one_made_from_their_parents(seen):
    assert seen["unnamed_children"] == completed([":0000", ":0001"])


def test_continue_as_new_keeps_the_order_of_events(seen):
    assert seen["continue_as_new"]["events"] == completed(list(range(10)))


def test_an_unknown_instance_is_the_sdks_own_error(seen):
    assert seen["unknown_instance"]["read"] == "no such instance exists"


def test_reuse_policies_of_the_old_form_refuse_keep_or_replace(seen):
    reuse = seen["reuse_policies"]
    assert "already exists" in reuse["error"]
    assert "already exists" in reuse["unlisted"]
    assert (reuse["ignored"], reuse["kept"]) == ("", "listener")
    assert (reuse["replaced"], reuse["after"]) == ("", completed("done"))
