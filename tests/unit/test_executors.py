"""Connected executors: who takes what, who has room, and answers without a token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from durabletask_sql.clock import FakeClock
from durabletask_sql.dispatch.executors import Seats, prefer_another, roomiest
from durabletask_sql.model.filters import WorkFilters, name_filter
from durabletask_sql.partitions.suspects import Standing, Suspicion
from durabletask_sql.ports.work import Needs, Profile, WorkKind

FLOW_ONLY = Profile(WorkFilters(orchestrations=name_filter([("flow", [])])))


@dataclass(eq=False)
class Someone:
    profile: Profile = Profile()
    name: str = "someone"


@dataclass(eq=False)
class Item:
    token: str
    key: Any = field(default="key")
    item: object = None
    rows: tuple = ()
    is_suspect: bool = False


def seated(*executors, slots=2):
    seats = Seats(WorkKind.ORCHESTRATION, Suspicion(FakeClock()))
    for executor in executors:
        seats.add(executor, slots, Standing("kind"))
    return seats


def names(takers):
    return [seat.executor.name for seat in takers.seats]


def test_takers_are_those_whose_filter_takes_the_name():
    seats = seated(Someone(name="all"), Someone(FLOW_ONLY, "flows"))
    assert names(seats.takers("flow", None)) == ["all", "flows"]
    assert names(seats.takers("other", "2")) == ["all"]


def test_classes_with_the_same_takers_share_a_group():
    seats = seated(Someone(name="all"), Someone(FLOW_ONLY, "flows"))
    assert seats.takers("other", "1") is seats.takers("another", None)
    assert seats.takers("flow", "1") is not seats.takers("other", "1")


def test_another_executor_of_a_known_profile_joins_the_groups_that_are_there():
    seats = seated(Someone(name="one"))
    group = seats.takers("flow", None)
    assert not seats.add(Someone(name="two"), 1, Standing("kind"))
    assert seats.takers("flow", None) is group
    assert names(group) == ["one", "two"]


def test_a_new_profile_and_the_last_of_one_change_who_takes_what():
    flows = Someone(FLOW_ONLY, "flows")
    seats = seated(Someone(name="all"))
    assert seats.add(flows, 1, Standing("kind"))
    assert names(seats.takers("flow", None)) == ["all", "flows"]
    assert seats.remove(flows) == ([], True)
    assert names(seats.takers("flow", None)) == ["all"]


def test_an_executor_without_slots_takes_nothing():
    seats = Seats(WorkKind.ACTIVITY, Suspicion(FakeClock()))
    assert not seats.add(Someone(), 0, Standing("kind"))
    assert not seats.takers("step", None)


def test_needs_narrow_the_takers():
    seats = seated(Someone(Profile(message_bytes=10), "small"), Someone(name="large"))
    assert names(seats.takers_of("flow", None, Needs(11, 11))) == ["large"]


def test_the_roomiest_is_chosen_and_none_that_is_full():
    one, two = Someone(name="one"), Someone(name="two")
    seats = seated(one, two)
    takers = seats.takers("flow", None)
    for number, expected in enumerate(["one", "two", "one", "two"]):
        seat = roomiest(takers)
        assert seat.executor.name == expected
        seats.open(seat, Item(str(number), number))
    assert roomiest(takers) is None
    seats.close("1")
    assert roomiest(takers).executor is two


def test_who_gave_an_item_back_gets_it_again_only_when_no_other_has_room():
    one, two = Someone(name="one"), Someone(name="two")
    seats = seated(one, two, slots=1)
    takers = seats.takers("flow", None)
    first, second = takers.seats
    assert prefer_another(takers, first, two) is first
    assert prefer_another(takers, first, one) is second
    seats.open(second, Item("t"))
    assert prefer_another(takers, first, one) is first


def test_what_a_leaving_executor_held_is_not_open_any_more():
    one = Someone(name="one")
    seats = seated(one)
    item = Item("t")
    seats.open(roomiest(seats.takers("flow", None)), item)
    assert seats.remove(one) == ([item], True)
    assert seats.close("t") is None
    assert seats.token_of("key") == ""
    assert len(seats) == 0


def test_an_answer_without_a_token_is_found_by_its_key():
    seats = seated(Someone())
    seat = roomiest(seats.takers("flow", None))
    seats.open(seat, Item("old"))
    seats.open(seat, Item("new"))
    assert seats.token_of("key") == "new"
    seats.close("old")
    assert seats.token_of("key") == "new"
    seats.close("new")
    assert seats.token_of("key") == ""


def test_a_key_stays_with_the_executor_that_answers_without_a_token():
    """Else its answer to the stale dispatch would be taken for that of the new one."""
    silent, other = Someone(Profile(echoes_tokens=False), "silent"), Someone(name="other")
    seats = seated(silent, other)
    by_name = {seat.executor.name: seat for seat in seats.takers("flow", None).seats}
    seats.open(by_name["silent"], Item("stale"))
    assert seats.is_open_without_token("key")
    seats.open(by_name["other"], Item("again"))
    assert seats.token_of("key") == "stale"
    assert names(seats.takers_of("flow", None, Needs(echo=True))) == ["other"]
    seats.close("again")
    seats.close("stale")
    assert not seats.is_open_without_token("key")
