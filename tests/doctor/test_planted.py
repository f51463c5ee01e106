"""Damage of each kind, planted past everything of this project: the doctor names it, and mends what can be mended safely."""

from __future__ import annotations

import asyncio
import json
import sqlite3

import pytest

from dispatch.bench import Worker, on_bench
from doctor.examining import examine, plant, problems
from doctor.test_healthy import in_many_states
from durabletask_sql.cli import main
from durabletask_sql.model.belongings import Belonging
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.storage.inspection import SqlInspector
from tables import rows

HERE = "hub_id = 1 AND instance_id ="

# What is done to a hub in all states (with one partition): the statements, and what is found by which name.
DAMAGE = {
    "a history with a gap": ([f"UPDATE history SET first_sequence = first_sequence + 1 WHERE {HERE} 'timer'"],
                             ("history", "timer"), "gap"),
    "a history that is counted wrongly": ([f"UPDATE history SET event_count = event_count + 1 WHERE {HERE} 'timer'"],
                                          ("history", "timer"), "says that it has"),
    "a history without its end": ([f"DELETE FROM history WHERE {HERE} 'listening' AND first_sequence > 0"],
                                  ("history", "listening"), "its row says"),
    "an instance that says it has more history": ([f"UPDATE instances SET history_count = 99 WHERE {HERE} 'ended'"],
                                                  ("history", "ended"), "its row says 99"),
    "an end that the row does not know": ([f"UPDATE instances SET status = 0, completed_at = NULL WHERE {HERE} 'ended'"],
                                          ("history", "ended"), "has not ended"),
    "a row that knows an end which the history does not": (
        [f"UPDATE instances SET status = 1 WHERE {HERE} 'timer'"], ("history", "timer"), "completion time is None"),
    "bytes that are no history": ([f"UPDATE history SET events = substr(events, 2) WHERE {HERE} 'failed'"],
                                  ("history", "failed"), "cannot be read"),
    "a large text that is gone": ([f"DELETE FROM payloads WHERE {HERE} 'ended' AND payload_id = 1"],
                                  ("history", "ended"), "is missing"),
    "an instance in a partition that is not its own": (
        [f"UPDATE {table} SET partition = 3 WHERE {HERE} 'failed'" for table in ("instances", "history", "payloads")]
        + ["UPDATE task_hubs SET partition_count = 4"], ("history", "failed"), "partition 3"),
    "a task that is gone": ([f"DELETE FROM activity_queue WHERE {HERE} 'anew'"], ("stuck", "anew"), "activity 0"),
    "a timer that is gone": ([f"DELETE FROM timers WHERE {HERE} 'timer'"], ("stuck", "timer"), "timer 1"),
    "a child that is gone": ([f"DELETE FROM {table} WHERE {HERE} 'below'" for table in ("instances", "history", "payloads")],
                             ("stuck", "children"), "sub-orchestration 1"),
    "a call that is gone": (["DELETE FROM control_queue WHERE instance_id = '@counter@one'"], ("stuck", "calling"),
                            "entity call"),
    "a lock request that is gone": (["DELETE FROM control_queue WHERE instance_id = '@counter@two'"],
                                    ("stuck", "queued"), "section second"),
    "a lock that is gone": (["UPDATE entities SET lock_instance_id = NULL, lock_execution_id = NULL, lock_section_id = NULL"],
                            ("stuck", "locked"), "the lock of @counter@one"),
    "a start that is gone": ([f"DELETE FROM timers WHERE {HERE} 'scheduled'"], ("stuck", "scheduled"), "start message"),
    "an entity without anything": (
        ["INSERT INTO entities (hub_id, partition, instance_id, row_version, modified_at) VALUES (1, 0, '@empty@one', 1, 1)"],
        ("entities", "@empty@one"), "neither"),
    "a lock for an unknown section": ([f"UPDATE entities SET lock_section_id = 'other' WHERE {HERE} '@counter@one'"],
                                      ("locks", "@counter@one"), "knows nothing"),
    "a partition without a row": (["DELETE FROM partitions"], ("leases", "task hub default"), "without a row: [0]"),
    "a partition that nobody owns": (["UPDATE partitions SET owner = 0"], ("leases", "partition 0"), "nobody owns it"),
    "an owner without a row": (["UPDATE partitions SET owner = 5"], ("leases", "partition 0"), "owner 5 is gone"),
}

GONE = "VALUES (1, 0, 'nobody', 'old'"
QUEUED = "hub_id, partition, instance_id, execution_id"
# What can be mended: the statements, what is found, and the query whose count goes to 0.
MENDED = {
    "a message for nobody": (
        [f"INSERT INTO control_queue ({QUEUED}, kind, held_epoch, events) {GONE}, 1, 0, '')"],
        ("orphans", "nobody"), "control_queue WHERE instance_id = 'nobody'"),
    "a message for who has ended": (
        ["INSERT INTO control_queue (hub_id, partition, instance_id, kind, held_epoch, events) VALUES (1, 0, 'ended', 1, 0, '')"],
        ("orphans", "ended"), "control_queue WHERE instance_id = 'ended'"),
    "a timer of nobody": (
        [f"INSERT INTO timers ({QUEUED}, kind, fire_at, held_epoch, events) {GONE}, 1, 9000000000000000, 0, '')"],
        ("orphans", "nobody"), "timers WHERE instance_id = 'nobody'"),
    "a timer of an execution that is gone": (
        [f"UPDATE timers SET execution_id = 'old' WHERE {HERE} 'timer'"], ("orphans", "timer"),
        "timers WHERE execution_id = 'old'"),
    "a task of nobody": (
        [f"INSERT INTO activity_queue ({QUEUED}, task_id, name, host, token, event) {GONE}, 1, 'rare', 0, 0, '')"],
        ("orphans", "nobody"), "activity_queue WHERE instance_id = 'nobody'"),
    "a history of nobody": (
        [f"INSERT INTO history ({QUEUED}, first_sequence, event_count, events) {GONE}, 0, 1, '')"],
        ("orphans", "nobody"), "history WHERE instance_id = 'nobody'"),
    "a payload of an execution that is gone": (
        [f"INSERT INTO payloads ({QUEUED}, payload_id, content) VALUES (1, 0, 'timer', 'old', 5, '')"],
        ("orphans", "timer"), "payloads WHERE execution_id = 'old'"),
    "tasks that a dead host has claimed": (
        [f"UPDATE activity_queue SET host = 7, token = 7 WHERE {HERE} 'anew'"], ("claims", "host 7"),
        "activity_queue WHERE host = 7"),
    "messages held in the future": (
        ["UPDATE control_queue SET held_epoch = 999 WHERE instance_id = '@counter@one'"], ("epochs", "partition 0"),
        "control_queue WHERE held_epoch = 999"),
    "timers held in the future": (
        [f"UPDATE timers SET held_epoch = 999 WHERE {HERE} 'timer'"], ("epochs", "partition 0"),
        "timers WHERE held_epoch = 999"),
    "a lock of the dead": (
        [f"UPDATE entities SET lock_execution_id = 'old' WHERE {HERE} '@counter@one'"], ("locks", "@counter@one"), None),
}


@pytest.fixture
def hub(database_url):
    """A hub in many states whose server has stopped, with a host that seems to live and owns it."""
    async def test(bench):
        await in_many_states(bench, bench.connect(Worker()))

    on_bench(database_url, test)
    plant(database_url, "UPDATE activity_queue SET host = 0, token = 0",
          "INSERT INTO hosts (hub_id, host_id, name, machine, pid, started_at, heartbeat_at, expires_at) "
          "VALUES (1, 42, 'alive', '', 1, '', 8999999999000000, 9000000000000000)", "UPDATE partitions SET owner = 42")
    assert problems(asyncio.run(examine(database_url))) == {}
    return database_url


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_named(hub, name):
    statements, key, words = DAMAGE[name]
    plant(hub, *statements)
    found = problems(asyncio.run(examine(hub)))
    assert words in found[key], found


def stored(url):
    """Everything that is stored, as a text a row."""
    return {table: sorted(repr(row) for row in rows(url, f"SELECT * FROM {table}")) for table in (
        "instances", "history", "payloads", "control_queue", "timers", "activity_queue", "entities", "partitions")}


@pytest.mark.parametrize("name", MENDED)
def test_damage_is_mended_and_nothing_else_changes(hub, name):
    before = stored(hub)
    statements, key, left = MENDED[name]
    plant(hub, *statements)
    damaged = stored(hub)
    report = asyncio.run(examine(hub, repair=True))
    assert key in problems(report), problems(report)
    mended = [(one.check, one.subject) for one in report.repaired]
    assert mended == [key]
    after = stored(hub)
    if left is not None:
        assert rows(hub, f"SELECT count(*) FROM {left}") == [(0,)]
        changed = {table for table in after if after[table] != damaged[table]}
        assert len(changed) == 1
        if name.startswith(("a message", "a task", "a history", "a payload", "a timer of nobody")):
            assert after == before
    else:
        assert len(after["control_queue"]) == len(before["control_queue"]) + 1  # the release that frees it


def test_repairs_look_again_and_leave_what_somebody_has(hub):
    before = stored(hub)
    seq, execution = rows(hub, "SELECT seq, execution_id FROM timers WHERE instance_id = 'timer'")[0]
    key = InstanceKey(0, "timer")

    async def attempts():
        inspector = SqlInspector.open(hub)
        inspection = inspector.inspection((await inspector.hubs())[0])
        try:
            return [await inspection.delete(Belonging("timers", key, execution, seq)),
                    await inspection.delete(Belonging("history", key, execution)),
                    await inspection.delete(Belonging("payloads", key, execution)),
                    await inspection.release_claims(42), await inspection.release_lock("@counter@one"),
                    await inspection.lower_held("control_queue", 0), await inspection.lower_held("timers", 0)]
        finally:
            await inspector.close()

    assert asyncio.run(attempts()) == [0] * 7
    assert stored(hub) == before


def test_what_was_set_aside_explains_what_is_missing(hub):
    execution = rows(hub, "SELECT execution_id FROM instances WHERE instance_id = 'anew'")[0][0]
    plant(hub, f"DELETE FROM activity_queue WHERE {HERE} 'anew'",
          "INSERT INTO quarantine (hub_id, partition, source, seq, instance_id, execution_id, cause, attempts, set_aside_at) "
          f"VALUES (1, 0, 2, 1, 'anew', '{execution}', '', 5, 1)")
    report = asyncio.run(examine(hub))
    assert problems(report) == {}
    assert any(one.subject == "anew" and "set aside" in one.text for one in report.findings)


def test_the_command_says_what_is_wrong_and_exits_with_its_number(hub, capsys):
    arguments = ["doctor", "--database", hub]
    assert main(arguments) == 0
    assert "as promised" in capsys.readouterr().out
    plant(hub, f"DELETE FROM timers WHERE {HERE} 'timer'", "UPDATE control_queue SET held_epoch = 999")
    assert main([*arguments, "--repair"]) == 1
    printed = capsys.readouterr().out
    assert "problem: timer: it waits for what cannot come: timer 1 (stuck)" in printed
    assert "repaired" in printed
    assert main([*arguments, "--json", "--task-hub", "default"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [(one["check"], one["subject"]) for one in found["hubs"][0]["findings"] if one["level"] == "problem"] == [
        ("stuck", "timer")]


def test_the_command_exits_with_two_when_it_cannot_look(database_url, tmp_path, capsys):
    for url, words in ((f"sqlite:///{tmp_path / 'nothing.db'}", "there is no SQLite file"), ("mysql://x", "unknown scheme"),
                       ("postgresql://nobody@127.0.0.1:1/none", "cannot be used")):
        assert main(["doctor", "--database", url]) == 2
        assert words in capsys.readouterr().err
    if database_url.startswith("sqlite"):
        sqlite3.connect(database_url.removeprefix("sqlite:///")).close()
        (tmp_path / "hub.db").touch()
    assert main(["doctor", "--database", database_url]) == 2
    assert "is missing" in capsys.readouterr().err


def test_a_hub_that_does_not_exist_is_named(hub, capsys):
    assert main(["doctor", "--database", hub, "--task-hub", "other"]) == 2
    assert "no task hub 'other': the database has default" in capsys.readouterr().err


def test_a_damaged_file_and_a_journal_that_is_no_log_are_told(tmp_path, capsys):
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    on_bench(url, lambda _: asyncio.sleep(0))
    connection = sqlite3.connect(tmp_path / "hub.db")
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()
    assert main(["doctor", "--database", url]) == 1
    assert "journal_mode: it is delete, not wal" in capsys.readouterr().out
