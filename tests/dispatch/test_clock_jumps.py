"""The database's clock jumps by an hour, while hosts live, die and join (2.6): who is dead is told by what stands still."""

from __future__ import annotations

import asyncio

import pytest

from checker import check_hub
from dispatch.bench import Worker, on_bench
from dispatch.hosts import PARTITIONS, Cluster, Member, Player, on_hosts, watch_commits
from dispatch.test_clock_skew import clock_of, stamp
from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.dispatch import ownership
from jumps import DatabaseClock
from semantics.acts import kinds, new, timer
from tables import rows

HOUR = 3600
COUNT = 30
LEASE = 6.0
SOON = 2 * LEASE  # a lease from when it was last seen to change, and what it takes to look and to take over
BOTH_WAYS = pytest.mark.parametrize("by", [-HOUR, HOUR], ids=["back", "ahead"])


@pytest.fixture
def clock(database_url, monkeypatch):
    return DatabaseClock(database_url, monkeypatch)


def epochs(url):
    return dict(rows(url, "SELECT partition, epoch FROM partitions"))


async def begin(member: Member, name: str) -> None:
    await asyncio.gather(*(member.start("flow", f"{name}{number}") for number in range(COUNT)))


async def completed(cluster: Cluster, count: int) -> None:
    await cluster.until(lambda: rows(cluster.url, "SELECT count(*) FROM instances WHERE status = 1") == [(count,)])


async def renewed(cluster: Cluster, clock: DatabaseClock, times: int = 1) -> None:
    """Wait until everybody has sent so many heartbeats."""
    for _ in range(times):
        before = clock.beats()
        await cluster.until(lambda before=before: all(clock.beats().get(host) != at for host, at in before.items()))


@BOTH_WAYS
@pytest.mark.parametrize("first", ["the clock jumps", "the host dies"])
def test_a_host_that_dies_while_the_clock_jumps_is_taken_over_within_two_leases(clock, by, first, monkeypatch):
    seen = watch_commits(monkeypatch)

    async def test(cluster: Cluster):
        players = Player(), Player(), Player()
        doomed, *others = [await cluster.join(player) for player in players]
        await cluster.until(cluster.balanced, 10)
        await begin(doomed, "i")
        await begin(others[0], "j")
        if first == "the clock jumps":
            clock.jump(by)
            await renewed(cluster, clock)
            await cluster.kill(doomed)
        else:
            await cluster.kill(doomed)
            clock.jump(by)
        await cluster.until(cluster.balanced, SOON)
        await completed(cluster, 2 * COUNT)

    on_hosts(clock.url, test, lease=LEASE)
    assert check_hub(clock.url) == []
    assert all(len(hosts) == 1 for hosts in seen.values())


@BOTH_WAYS
def test_nobody_who_lives_loses_anything_when_the_clock_jumps(clock, by):
    async def test(cluster: Cluster):
        first, _, _ = [await cluster.join(Player()) for _ in range(3)]
        await cluster.until(cluster.balanced, 10)
        before = epochs(clock.url)
        await begin(first, "i")
        clock.jump(by)
        await begin(first, "j")
        await renewed(cluster, clock, times=2)  # everybody has looked since
        await completed(cluster, 2 * COUNT)
        assert epochs(clock.url) == before

    on_hosts(clock.url, test, lease=LEASE)
    assert check_hub(clock.url) == []


@BOTH_WAYS
def test_a_host_that_joins_when_the_clock_has_jumped_gets_its_share(clock, by, monkeypatch):
    """Who looks for the first time takes for dead who has not renewed since a jump ahead: that is fenced, and passes."""
    seen = watch_commits(monkeypatch)

    async def test(cluster: Cluster):
        first = await cluster.join(Player())
        await cluster.join(Player())
        await begin(first, "i")
        clock.jump(by)
        await cluster.join(Player())
        await cluster.until(cluster.balanced, SOON)
        before = epochs(clock.url)
        await begin(first, "j")
        await completed(cluster, 2 * COUNT)
        await renewed(cluster, clock, times=2)
        assert epochs(clock.url) == before

    on_hosts(clock.url, test, lease=LEASE)
    assert check_hub(clock.url) == []
    assert all(len(hosts) == 1 for hosts in seen.values())


def test_a_dead_host_is_buried_by_one_that_joined_after_the_clock_had_jumped_back(clock):
    """Its lease has an hour to go. It is believed for as long as it asked for, no longer."""
    async def test(cluster: Cluster):
        first = await cluster.join(Player())
        await begin(first, "i")
        await cluster.kill(first)
        clock.jump(-HOUR)
        second = await cluster.join(Player())
        await cluster.until(cluster.balanced, SOON)
        assert second.partitions == set(range(PARTITIONS))
        await completed(cluster, COUNT)

    on_hosts(clock.url, test, lease=LEASE)
    assert check_hub(clock.url) == []


@pytest.fixture
def often(monkeypatch):
    """Heartbeats every second although the lease is long, so that it outlasts what a slow machine is held up for."""
    monkeypatch.setattr(ownership, "_LONGEST_BEAT_SECONDS", 1.0)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("minutes", [0.4, 50.0], ids=["in memory", "in the database alone"])
def test_a_timer_that_a_jump_of_the_clock_makes_due_fires_with_the_next_heartbeat(clock, minutes):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        due = clock.now() + int(minutes * 60 * MICROSECONDS)
        await bench.answer(await worker.turn(), timer(1, stamp(due)))
        clock.jump(HOUR)
        item = await worker.turn()  # within ten seconds
        assert kinds(new(item)) == ["orchestratorStarted", "timerFired"]
        assert abs(clock_of(item) - clock.now()) < 10 * MICROSECONDS

    on_bench(clock.url, test)


@pytest.mark.usefixtures("often")
def test_a_timer_waits_for_the_clock_that_has_jumped_back(clock):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        due = clock.now() + MICROSECONDS
        item = await worker.turn()
        clock.jump(-HOUR)
        await bench.until(lambda: abs(bench.clock.now() - clock.now()) < MICROSECONDS)
        await bench.answer(item, timer(1, stamp(due)))
        await bench.start("flow", "two")
        await bench.answer(await worker.turn(), timer(1, stamp(clock.now() + 2 * MICROSECONDS)))
        assert (await worker.turn()).key.instance_id == "two"  # the first would be due before it, but for the jump
        clock.jump(HOUR)
        item = await worker.turn()
        assert (item.key.instance_id, kinds(new(item))) == ("one", ["orchestratorStarted", "timerFired"])

    on_bench(clock.url, test)
