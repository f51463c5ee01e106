"""Who is dead: whose row has stood still for as long as it asked to be believed, whatever the database's clock does (2.6)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.partitions.liveness import Liveness
from durabletask_sql.ports.leases import Heartbeat, View

ME, OTHER = 1, 2
LEASE, HOUR = 12, 3600
START = 1_700_000_000


@dataclass
class Scene:
    """Two hosts, time that goes on, and the clock of their database, which may jump: `ahead` seconds."""

    liveness: Liveness = field(default_factory=Liveness)
    time: float = 100.0
    ahead: float = 0.0
    rows: dict[int, Heartbeat] = field(default_factory=dict)

    def database_time(self) -> int:
        return int((START + self.time + self.ahead) * MICROSECONDS)

    def beat(self, host: int, lease: float = LEASE) -> None:
        now = self.database_time()
        self.rows[host] = Heartbeat(now, now + int(lease * MICROSECONDS))

    def look(self, took: float = 0.0):
        asked, view = self.time, View(dict(self.rows), (), self.database_time())
        self.time += took
        return self.liveness.judge(ME, view, asked, self.time)

    def sees(self, host: int) -> str:
        found = self.look()
        assert found.live.keys() | found.dead.keys() == self.rows.keys()
        return "live" if host in found.live else "dead"


@pytest.fixture
def scene() -> Scene:
    """This host has looked once."""
    made = Scene()
    made.beat(ME)
    made.beat(OTHER)
    made.look()
    return made


@pytest.mark.parametrize("ahead", [0, -HOUR, HOUR, 5, -5])
def test_a_row_that_stands_still_for_its_lease_is_dead_and_not_before(scene, ahead):
    scene.ahead += ahead
    scene.time += LEASE - 0.1
    scene.beat(ME)
    assert scene.sees(OTHER) == "live"
    scene.time += 0.2
    assert scene.look().dead == {OTHER: scene.rows[OTHER].at}


def test_each_host_is_believed_for_as_long_as_it_asked_for(scene):
    scene.beat(OTHER, lease=60)
    scene.look()
    scene.time += 59
    assert scene.sees(OTHER) == "live"
    scene.time += 2
    assert scene.sees(OTHER) == "dead"


@pytest.mark.parametrize("ahead", [0, -HOUR, HOUR])
def test_who_was_dead_lives_again_with_its_next_heartbeat(scene, ahead):
    scene.time += LEASE + 1
    assert scene.sees(OTHER) == "dead"
    scene.ahead += ahead
    scene.beat(OTHER)
    assert scene.sees(OTHER) == "live"


def test_how_long_a_host_is_believed_still_is_told(scene):
    scene.time += 4
    assert scene.look().live[OTHER] == pytest.approx(LEASE - 4)


def test_a_heartbeat_counts_from_when_it_was_sent_not_from_when_it_was_seen(scene):
    scene.time += 1
    scene.beat(OTHER)
    scene.time += 9
    assert scene.look().live[OTHER] == pytest.approx(LEASE - 9)
    scene.time += LEASE - 8.9
    assert scene.sees(OTHER) == "dead"


def test_what_was_sent_before_the_time_jumped_ahead_counts_from_when_it_is_seen(scene):
    scene.time += 2
    scene.beat(OTHER)
    scene.ahead += HOUR
    scene.time += 2
    assert scene.look().live[OTHER] == pytest.approx(LEASE)
    scene.time += LEASE + 0.1
    assert scene.sees(OTHER) == "dead"


def test_what_was_sent_before_the_time_jumped_back_counts_for_a_lease_from_when_it_is_seen(scene):
    scene.time += 2
    scene.beat(OTHER)
    scene.ahead -= HOUR
    scene.time += 2
    assert scene.look().live[OTHER] == pytest.approx(LEASE)


def test_a_look_that_takes_long_is_no_jump_of_the_time(scene):
    scene.time += 2
    scene.beat(OTHER)
    scene.time += 1
    scene.look(took=6)
    scene.beat(OTHER)
    scene.time += 4
    assert scene.look().live[OTHER] == pytest.approx(LEASE - 4)


def test_who_looks_for_the_first_time_takes_the_databases_word():
    scene = Scene()
    scene.beat(OTHER)
    scene.time += LEASE + 1
    scene.beat(ME)
    assert scene.sees(OTHER) == "dead"


def test_who_looks_for_the_first_time_after_a_jump_back_waits_for_one_lease():
    scene = Scene()
    scene.beat(OTHER)
    scene.ahead -= HOUR
    scene.beat(ME)
    assert scene.look().live[OTHER] == pytest.approx(LEASE)
    scene.time += LEASE + 0.1
    assert scene.sees(OTHER) == "dead"


def test_a_process_that_does_not_run_is_dead_at_once(scene):
    scene.beat(OTHER)
    scene.rows[OTHER] = replace(scene.rows[OTHER], gone=True)
    assert scene.look().dead == {OTHER: scene.rows[OTHER].at}


def test_a_host_never_takes_itself_for_dead(scene):
    scene.ahead += HOUR
    scene.time += LEASE + 1
    assert scene.sees(ME) == "live"


def test_a_host_that_has_no_row_is_forgotten(scene):
    row = scene.rows.pop(OTHER)
    scene.time += LEASE / 2
    assert scene.look().live.keys() == {ME}
    scene.rows[OTHER] = row
    scene.time += LEASE
    assert scene.sees(OTHER) == "dead"
