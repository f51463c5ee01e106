"""The checker of entities finds what was planted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from entity_checker import AHEAD, StoredEntity, StoredOwner, check_entities

KEY = ("ann", "e1", "s")
ENTITY = StoredEntity("@c@1", has_state=True, owner=KEY)
FREE = StoredEntity("@c@2", has_state=True, owner=None)
OWNER = StoredOwner("ann", "e1", 0, {"s": (("@c@1",), True)})


def test_a_legal_hub_passes():
    assert check_entities([ENTITY, FREE], [OWNER], [("@c@1", 1)]) == []
    assert check_entities([FREE], [replace(OWNER, sections={"s": (("@c@1",), False)})]) == []


@pytest.mark.parametrize(("entities", "owners", "waiting", "word"), [
    ([ENTITY], [], [], "no such section"),
    ([ENTITY], [replace(OWNER, execution_id="e2")], [], "no such section"),
    ([ENTITY], [replace(OWNER, sections={"s": (("@c@2",), False)})], [], "no such section"),
    ([FREE], [OWNER], [], "not locked by"),
    ([ENTITY], [replace(OWNER, status=5)], [], "left its section"),
    ([replace(FREE, has_state=False)], [], [], "neither"),
    ([FREE], [], [("@c@2", 1)], "left over"),
    ([], [], [("@c@3", 1)], "left over"),
    ([ENTITY], [OWNER], [("@c@1", AHEAD)], "left over"),
])
def test_planted_bugs_are_found(entities, owners, waiting, word):
    assert any(word in problem for problem in check_entities(entities, owners, waiting))
