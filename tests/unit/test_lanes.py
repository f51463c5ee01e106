"""Ready work waits by who takes it: the oldest that somebody takes comes next, whatever waits before it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from durabletask_sql.partitions.lanes import Lane, Lanes


@dataclass(eq=False)
class Item:
    group: str
    name: str
    lane: Lane | None = None
    place: int = 0


@pytest.fixture
def lanes():
    return Lanes(lambda item: item.group)


def names(lanes, *free):
    """Take everything that these groups take, and return it in order."""
    taken = []
    while (found := lanes.take(lambda group: group if group in free else None)) is not None:
        assert found[0].group == found[1]
        assert found[0].lane is None
        taken.append(found[0].name)
    return taken


def test_the_oldest_comes_first_over_all_lanes(lanes):
    for number, group in enumerate("aabab"):
        lanes.add(Item(group, str(number)))
    assert names(lanes, "a", "b") == ["0", "1", "2", "3", "4"]


def test_what_nobody_takes_delays_no_other(lanes):
    for number, group in enumerate("aabab"):
        lanes.add(Item(group, str(number)))
    assert names(lanes, "b") == ["2", "4"]
    assert len(lanes) == 3
    assert [item.name for item in lanes.waiting_for("a")] == ["0", "1", "3"]


def test_first_goes_before_all_others_of_any_lane(lanes):
    lanes.add(Item("a", "old"))
    lanes.add(Item("b", "second"), first=True)
    lanes.add(Item("a", "first"), first=True)
    assert names(lanes, "a", "b") == ["first", "second", "old"]


def test_an_item_that_was_taken_out_is_gone_and_may_come_again(lanes):
    one, two = Item("a", "one"), Item("a", "two")
    lanes.add(one)
    lanes.add(two)
    lanes.remove(one)
    lanes.remove(one)
    lanes.add(one)
    assert names(lanes, "a") == ["two", "one"]


def test_an_item_moves_to_the_lane_that_is_right_now_and_one_that_stands_nowhere_stays_out(lanes):
    item, idle = Item("a", "one"), Item("a", "idle")
    lanes.add(item)
    item.group = "b"
    lanes.move(item)
    lanes.move(idle)
    assert names(lanes, "a") == []
    assert names(lanes, "b") == ["one"]


def test_sorting_again_keeps_the_order(lanes):
    items = [Item(group, str(number)) for number, group in enumerate("abab")]
    for item in items:
        lanes.add(item)
    for item in items:
        item.group = "c"
    lanes.sort_again()
    assert names(lanes, "a", "b") == []
    assert names(lanes, "c") == ["0", "1", "2", "3"]


def test_taking_looks_at_heads_alone(lanes):
    asked = []
    for number in range(1000):
        lanes.add(Item("a" if number % 2 else "b", str(number)))
    lanes.take(asked.append)
    assert sorted(asked) == ["a", "b"]
