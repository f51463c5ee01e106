"""Who should own what: whatever hosts come and go, everything ends up owned, and within one of each other."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from durabletask_sql.partitions.balance import decide, heirs, plan
from durabletask_sql.ports.leases import NOBODY, Lease


def owned(*owners: int) -> list[Lease]:
    return [Lease(number, owner, 1) for number, owner in enumerate(owners)]


def test_the_first_host_takes_everything():
    moves = decide(1, {1}, owned(0, 0, 0))
    assert [lease.partition for lease in moves.acquire] == [0, 1, 2]
    assert not moves.ask


def test_a_host_that_joins_asks_for_its_share_and_no_more():
    moves = decide(2, {1, 2}, owned(1, 1, 1, 1, 1))
    assert not moves.acquire
    assert len(moves.ask) == 2


def test_hosts_that_join_together_ask_for_different_partitions():
    leases = owned(*[1] * 16)
    second, third = decide(2, {1, 2, 3}, leases), decide(3, {1, 2, 3}, leases)
    assert len(second.ask) == len(third.ask) == 5
    assert not set(second.ask) & set(third.ask)


def test_nothing_moves_between_hosts_that_are_within_one_of_each_other():
    for leases in (owned(1, 1, 2), owned(1, 2, 2), owned(3, 1, 2), owned(1, 3, 3, 2, 2)):
        assert plan({1, 2, 3} if any(lease.owner == 3 for lease in leases) else {1, 2}, leases) == []


def test_only_from_owners_above_their_share():
    leases = owned(1, 1, 1, 1, 2, 2)
    assert {lease.owner for lease in decide(3, {1, 2, 3}, leases).ask} == {1}


def test_a_partition_of_a_dead_host_is_free_unless_it_was_promised_to_a_living_one():
    assert [lease.partition for lease in decide(2, {2}, owned(1, 1)).acquire] == [0, 1]
    promised = [Lease(0, 1, 1, 3), Lease(1, 0, 1, 3)]
    assert [lease.partition for lease in decide(3, {2, 3}, promised).acquire] == [0, 1]
    assert [lease.partition for lease in decide(2, {2}, promised).acquire] == [0, 1]


def test_what_is_promised_is_awaited_until_its_owner_lets_go():
    asked = [Lease(0, 1, 1, 2), Lease(1, 1, 1)]
    assert decide(2, {1, 2}, asked).awaits
    assert decide(1, {1, 2}, asked).hand_over == {0: 2}
    released = [Lease(0, NOBODY, 2, 2), Lease(1, 1, 1)]
    assert decide(2, {1, 2}, released).acquire == (released[0],)
    assert not decide(2, {1, 2}, released).awaits


def test_what_was_promised_to_a_host_that_died_is_kept():
    assert decide(1, {1}, [Lease(0, 1, 1, 2)]).hand_over == {}


def test_a_host_that_does_not_live_does_nothing():
    assert decide(1, {2}, owned(0, 1, 1)) == decide(1, set(), [])


def test_a_leaving_host_leaves_everything_to_the_others_evenly():
    found = heirs(1, {1, 2, 3}, owned(1, 1, 1, 1, 2, 3))
    assert Counter(found.values()) == {2: 2, 3: 2}
    assert heirs(1, {1}, owned(1, 1)) == {}
    assert heirs(1, {1, 2, 3}, [Lease(0, 1, 1, 3)]) == {0: 3}


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.sets(st.integers(1, 5), min_size=1),
       st.lists(st.integers(0, 5), min_size=40, max_size=40))
def test_what_all_hosts_want_at_once_is_never_the_same(owners, live, promises):
    leases = [Lease(number, owner, 1, next_owner) for number, (owner, next_owner) in
              enumerate(zip(owners, promises, strict=False))]
    wanted = Counter(lease.partition for host in live
                     for moves in (decide(host, live, leases),) for lease in (*moves.acquire, *moves.ask))
    assert set(wanted.values()) <= {1}


class Cluster(RuleBasedStateMachine):
    """Hosts that come, go and act one after the other on what they read, sometimes long ago."""

    @initialize(count=st.integers(1, 20))
    def create(self, count):
        self.leases = owned(*[NOBODY] * count)
        self.live: set[int] = set()
        self.last = 0
        self.views: dict[int, tuple[frozenset[int], list[Lease]]] = {}

    def write(self, seen: Lease, **changes) -> None:
        if self.leases[seen.partition] == seen:
            self.leases[seen.partition] = replace(seen, **changes)

    @rule()
    def join(self):
        self.last += 1
        self.live.add(self.last)

    @rule(data=st.data())
    def die(self, data):
        if self.live:
            self.live.discard(data.draw(st.sampled_from(sorted(self.live))))

    @rule(data=st.data())
    def leave(self, data):
        if self.live:
            host = data.draw(st.sampled_from(sorted(self.live)))
            for partition, heir in heirs(host, self.live, self.leases).items():
                lease = self.leases[partition]
                self.write(lease, owner=NOBODY, epoch=lease.epoch + 1, next_owner=heir)
            self.live.discard(host)

    @rule(data=st.data())
    def look(self, data):
        if self.live:
            self.views[data.draw(st.sampled_from(sorted(self.live)))] = frozenset(self.live), list(self.leases)

    @rule(data=st.data())
    def act(self, data):
        acting = sorted(self.views.keys() & self.live)
        if acting:
            host = data.draw(st.sampled_from(acting))
            self.do(host, *self.views.pop(host))

    def do(self, host: int, live: frozenset[int], leases: list[Lease]) -> int:
        moves = decide(host, live, leases)
        for lease in moves.acquire:
            if lease.owner not in self.live:
                self.write(lease, owner=host, epoch=lease.epoch + 1, next_owner=NOBODY)
        for lease in moves.ask:
            self.write(lease, next_owner=host)
        for partition, heir in moves.hand_over.items():
            lease = leases[partition]
            if self.leases[partition].owner == host and self.leases[partition].epoch == lease.epoch:
                self.leases[partition] = Lease(partition, NOBODY, lease.epoch + 1, heir)
        return len(moves.acquire) + len(moves.ask) + len(moves.hand_over)

    @invariant()
    def it_comes_to_rest_in_balance(self):
        if not getattr(self, "live", None):
            return
        kept, kept_views = list(self.leases), dict(self.views)
        rounds = 0
        while sum(self.do(host, frozenset(self.live), list(self.leases)) for host in sorted(self.live)):
            rounds += 1
            assert rounds <= 6
        counts = Counter(lease.owner for lease in self.leases)
        held = [counts[host] for host in self.live]
        assert sum(held) == len(self.leases)
        assert max(held) - min(held) <= 1
        self.leases, self.views = kept, kept_views


def test_whatever_hosts_come_and_go_everything_is_owned_in_balance():
    run_state_machine_as_test(Cluster, settings=settings(max_examples=60, stateful_step_count=40))
