"""The rule of who is to blame, alone: killers are found within ten losses, and random kills frame nobody."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durabletask_sql.clock import FakeClock
from durabletask_sql.model.deliveries import Out, RowKey
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import MessageKind, QueueRow, TimerRow
from durabletask_sql.model.quarantine import Source
from durabletask_sql.partitions.suspects import (
    COUNTED_FAILURES,
    PATIENCE_SECONDS,
    REMEMBERED,
    SUSPECT_FROM,
    Standing,
    Suspicion,
    after_refusal,
    is_accused,
    is_out,
    is_suspect,
    lost_with_host,
    parted,
)

KEY = InstanceKey(0, "one")


@dataclass(frozen=True, eq=False)
class Item:
    item: str
    is_suspect: bool = False
    rows: tuple = ()


def row(seq, failed=0):
    return QueueRow(seq, KEY, None, MessageKind.EVENT, b"", failed)


def timer(seq, failed=0):
    return TimerRow(seq, KEY, "e", MessageKind.EVENT, 0, b"", failed)


def test_two_losses_in_a_row_change_nothing_and_eight_set_aside():
    failures = range(SUSPECT_FROM + COUNTED_FAILURES + 1)
    assert [failed for failed in failures if is_suspect(failed)] == [3, 4, 5, 6, 7, 8]
    assert [failed for failed in failures if is_out(failed)] == [8]


def test_five_answers_that_cannot_be_carried_out_set_aside_whatever_was_lost_before():
    for before in (0, 1, 2, 3):
        failed = before
        for _ in range(COUNTED_FAILURES):
            assert not is_out(failed)
            failed = after_refusal(failed)
        assert is_out(failed)


@given(st.lists(st.integers(0, 8), max_size=6), st.lists(st.integers(0, 8), max_size=4))
def test_a_suspect_is_alone_in_its_turn_and_something_can_always_go_on(failed, failed_timers):
    rows, timers = [row(*one) for one in enumerate(failed)], [timer(*one) for one in enumerate(failed_timers)]
    taken, taken_timers = parted(rows, timers)
    both = [*taken, *taken_timers]
    assert bool(both) == bool(rows or timers)
    assert list(taken) == rows[:len(taken)]
    assert len(both) == 1 or not any(is_suspect(one.failed) for one in both)


def test_of_a_lost_worker_the_suspect_alone_is_marked():
    suspicion, standing = Suspicion(FakeClock()), Standing("kind", has_completed=True)
    innocent, suspect = Item("a"), Item("b", is_suspect=True)
    assert suspicion.marked(standing, [innocent, suspect]) == [suspect]
    assert suspicion.marked(standing, [innocent]) == [innocent]


def test_a_worker_has_one_suspect_at_a_time():
    suspicion = Suspicion(FakeClock())
    standing, other = Standing("kind", has_completed=True), Standing("kind", has_completed=True)
    suspect = Item("a", is_suspect=True)
    assert suspicion.may_take(standing)
    suspicion.went_out(standing, suspect)
    assert not suspicion.may_take(standing)
    assert suspicion.may_take(other)
    suspicion.careful = True
    assert not suspicion.may_take(other)
    suspicion.came_back(standing, suspect)
    assert suspicion.may_take(standing)
    assert suspicion.may_take(other)


def test_a_suspect_goes_to_a_worker_that_has_shown_that_it_works_or_has_nothing_else_to_do():
    suspicion, standing = Suspicion(FakeClock()), Standing("kind")
    assert suspicion.may_take(standing)
    suspicion.went_out(standing, Item("a"))
    assert not suspicion.may_take(standing)
    suspicion.completed(standing, "z")
    assert suspicion.may_take(standing)


def test_a_suspect_that_was_lost_as_one_goes_to_a_worker_that_holds_nothing_and_elsewhere_now_and_then():
    clock = FakeClock()
    suspicion, idle, busy = Suspicion(clock), Standing("kind"), Standing("kind", has_completed=True)
    suspicion.went_out(busy, Item("a"))
    accused = Item("b", is_suspect=True)

    def takers():
        return [standing for standing in (idle, busy) if suspicion.may_take(standing, accused=True)]

    for begin in (lambda: None, lambda: suspicion.marked(busy, [accused]), lambda: suspicion.went_out(busy, accused)):
        begin()
        if busy.has_suspect:
            suspicion.came_back(busy, accused)
        clock.advance(PATIENCE_SECONDS - 1)
        assert takers() == [idle]
        clock.advance(1)
        assert takers() == [idle, busy]


def test_workers_begin_with_a_suspect_unless_the_last_of_their_kind_was_lost_before_it_had_completed_anything():
    suspicion, fresh, other = Suspicion(FakeClock()), Standing("kind"), Standing("another kind")
    innocent = Item("a")
    assert suspicion.may_begin_with(fresh)
    suspicion.marked(Standing("kind", has_completed=True), [innocent])
    suspicion.marked(Standing("kind"), [])
    assert suspicion.may_begin_with(fresh)
    suspicion.marked(Standing("kind"), [innocent])
    assert not suspicion.may_begin_with(fresh)
    assert suspicion.may_take(fresh)  # there is nothing else to begin with
    assert suspicion.may_begin_with(other)
    suspicion.completed(Standing("kind"), "z")
    assert suspicion.may_begin_with(fresh)
    suspicion.went_out(fresh, innocent)
    assert not suspicion.may_begin_with(fresh)


def test_failures_of_different_items_at_workers_that_complete_nothing_count_against_no_item():
    suspicion = Suspicion(FakeClock())
    assert suspicion.counts(Standing("kind"), "a")
    assert suspicion.counts(Standing("kind"), "a")  # the only one that fails
    assert not suspicion.counts(Standing("kind"), "b")
    assert not suspicion.counts(Standing("kind"), "a")
    suspicion.completed(Standing("another kind"), "z")
    assert suspicion.counts(Standing("kind"), "b")  # the only one since
    assert not suspicion.counts(Standing("kind"), "a")
    suspicion.completed(working := Standing("kind"), "y")
    assert suspicion.counts(Standing("kind"), "b")
    assert suspicion.counts(Standing("kind"), "a")  # others get on, since it first failed
    assert suspicion.counts(working, "c")
    suspicion.completed(working, "a")
    assert suspicion.counts(Standing("kind"), "b")
    assert not suspicion.counts(Standing("kind"), "a")  # it begins anew


def test_items_that_fail_here_and_are_never_heard_of_again_are_forgotten():
    suspicion, working = Suspicion(FakeClock()), Standing("kind")
    suspicion.completed(working, "z")
    suspicion.counts(Standing("kind"), "first")
    for number in range(REMEMBERED):
        suspicion.counts(Standing("kind"), number)
    assert len(suspicion._before) == REMEMBERED
    assert "first" not in suspicion._before


def test_of_a_lost_careful_host_the_suspect_alone_is_marked():
    innocent = Out(RowKey(Source.TASK, 0, 1), is_suspect=False)
    suspect = Out(RowKey(Source.TASK, 0, 2), is_suspect=True)
    assert lost_with_host([innocent, suspect]) == [suspect]
    assert lost_with_host([innocent, innocent]) == [innocent, innocent]


class Hub:
    """Items at workers that are lost now and then, as the board hands them out: suspects first if nothing is out, or last."""

    def __init__(self, count, slots, chance, killers=()):
        self.chance, self.slots = chance, slots
        self.killers = frozenset(killers)
        self.failed = dict.fromkeys(map(str, range(count)), 0)
        self.waiting = list(self.failed)
        self.suspicion, self.standing = Suspicion(FakeClock()), Standing("kind")
        self.out, self.aside, self.losses = [], [], dict.fromkeys(self.failed, 0)

    def hand_out(self):
        for name in [name for name in self.waiting if is_suspect(self.failed[name])]:
            if self.suspicion.may_begin_with(self.standing):
                self._send(Item(name, is_suspect=True))
        for name in [name for name in self.waiting if not is_suspect(self.failed[name])]:
            if len(self.out) < self.slots:
                self._send(Item(name))
        for name in list(self.waiting):
            failed = self.failed[name]
            if is_suspect(failed) and len(self.out) < self.slots and self.suspicion.may_take(
                    self.standing, accused=is_accused(failed)):
                self._send(Item(name, is_suspect=True))

    def _send(self, item):
        self.waiting.remove(item.item)
        self.out.append(item)
        self.suspicion.went_out(self.standing, item)

    def finish(self, item):
        self.out.remove(item)
        self.suspicion.came_back(self.standing, item)
        self.suspicion.completed(self.standing, item.item)

    def lose_worker(self):
        held, self.out = self.out, []
        for item in held:
            self.suspicion.came_back(self.standing, item)
            self.losses[item.item] += 1
        for item in self.suspicion.marked(self.standing, held):
            self.failed[item.item] += 1
        for item in reversed(held):
            failed = self.failed[item.item]
            if is_out(failed):
                self.aside.append(item.item)
            else:
                self.waiting.insert(len(self.waiting) if is_suspect(failed) else 0, item.item)
        self.standing = Standing("kind")

    def run(self):
        steps = 0
        while self.waiting or self.out:
            steps += 1
            assert steps < 100_000, "it does not come to an end"
            self.hand_out()
            if any(item.item in self.killers for item in self.out) or self.chance.random() < self.kill_chance:
                self.lose_worker()
            elif self.out:
                self.finish(self.chance.choice(self.out))

    kill_chance = 0.0


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("count", "slots", "kill_chance"), [(300, 10, 0.03), (300, 100, 0.003), (50, 5, 0.05), (3, 3, 0.1)])
def test_no_innocent_item_is_set_aside_by_random_kills(seed, count, slots, kill_chance):
    hub = Hub(count, slots, random.Random(seed))
    hub.kill_chance = kill_chance
    hub.run()
    assert hub.aside == []


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("count", "slots", "killers"), [
    (200, 10, ["7"]), (200, 100, ["0"]), (200, 100, ["199"]), (50, 5, ["1", "2"]), (2, 2, ["0"]), (1, 1, ["0"])])
def test_killers_are_set_aside_within_ten_losses_and_nobody_else(seed, count, slots, killers):
    hub = Hub(count, slots, random.Random(seed), killers)
    hub.run()
    assert sorted(hub.aside) == sorted(killers)
    if len(killers) == 1:
        assert hub.losses[killers[0]] <= 10


@pytest.mark.parametrize("suspects", [[], ["5"]])
def test_a_worker_that_dies_of_everything_has_nothing_set_aside(suspects):
    hub = Hub(20, 10, random.Random(1), killers=map(str, range(20)))
    hub.failed.update(dict.fromkeys(suspects, SUSPECT_FROM))
    for _ in range(200):
        hub.hand_out()
        hub.lose_worker()
    assert hub.aside == []
    hub.killers = frozenset()
    hub.run()
    assert hub.aside == []


