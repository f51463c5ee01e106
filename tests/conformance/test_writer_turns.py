"""Several processes on one SQLite file take turns at writing, and nobody is starved."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sqlite3
import statistics
import subprocess
import sys
import threading
import time

import pytest

from durabletask_sql.errors import UnavailableError
from durabletask_sql.storage.dialect import SqliteCompiler
from durabletask_sql.storage.faults import WouldWaitError
from durabletask_sql.storage.sqlite import SqliteSession

# Commits without a pause until its input ends; each commit adds one to the row that the test reads. A transaction takes
# a while, so that a test that a slow machine holds up for a moment has not missed a dozen of them.
GREEDY = """
import sys, threading, time
from durabletask_sql.storage.dialect import SqliteCompiler
from durabletask_sql.storage.sqlite import SqliteSession

session = SqliteSession(sys.argv[1], SqliteCompiler(), writer=True)
ended = threading.Thread(target=sys.stdin.read)
ended.start()
print("ready", flush=True)
while ended.is_alive():
    session.begin()
    session._connection.execute("UPDATE one SET x = x + 1")
    time.sleep(0.005)
    session.commit()
session.close()
"""


@pytest.fixture
def path(tmp_path):
    found = str(tmp_path / "turns.db")
    with sqlite3.connect(found) as connection:
        connection.execute("CREATE TABLE one (x)")
        connection.execute("INSERT INTO one VALUES (0)")
    connection.close()
    return found


@pytest.fixture
def open_session(path):
    sessions = []

    def opened():
        sessions.append(SqliteSession(path, SqliteCompiler(), writer=True))
        return sessions[-1]

    yield opened
    for session in sessions:
        session.close()


def commits(session):
    return session._connection.execute("SELECT x FROM one").fetchone()[0]


def test_a_turn_comes_soon_although_others_commit_without_a_pause(path, open_session):
    greedy = [subprocess.Popen([sys.executable, "-c", GREEDY, path], text=True, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE) for _ in range(3)]
    try:
        assert [process.stdout.readline() for process in greedy] == ["ready\n"] * 3
        session, passed = open_session(), []
        for _ in range(15):
            before = commits(session)
            session.begin()
            passed.append(commits(session) - before)
            session.commit()
            while commits(session) == before + passed[-1]:  # until others write again: it is not greedy itself
                time.sleep(0.001)
    finally:
        for process in greedy:
            process.communicate(timeout=60)
    assert statistics.median(passed) <= 12, passed  # three would be a perfect round


def test_a_session_that_may_not_wait_leaves_at_once_while_another_has_its_turn(open_session):
    one, other = open_session(), open_session()
    one.begin()
    other.may_wait = False
    with pytest.raises(WouldWaitError):
        other.begin()
    one.commit()
    other.begin()
    other.rollback()


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_the_turn_is_handed_on_when_a_transaction_ends(open_session, end):
    one, other = open_session(), open_session()
    one.begin()
    came = threading.Event()

    def wait():
        other.begin()
        came.set()
        other.commit()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not came.is_set()
    getattr(one, end)()
    thread.join(20)
    assert came.is_set()


def test_whoever_ends_a_turn_lets_those_go_first_who_began_to_wait_during_it(open_session, monkeypatch):
    one, other = open_session(), open_session()
    came, slept = threading.Event(), []

    def wait():
        other.begin()
        came.set()
        other.commit()

    def sleep(seconds):
        slept.append(seconds)
        assert came.wait(20)

    one.begin()
    before = one._turn._began
    thread = threading.Thread(target=wait)
    thread.start()
    while os.pread(one._turn._file, 8, 0) == b"" or not one._turn._others_wait(one._turn._file):
        assert one._turn._began == before
    one.commit()
    one.may_wait = False
    with pytest.raises(WouldWaitError):
        one.begin()
    one.may_wait = True
    monkeypatch.setattr(time, "sleep", sleep)
    one.begin()
    one.commit()
    thread.join(20)
    assert len(slept) == 1


def test_a_failed_commit_hands_the_turn_on(path, open_session):
    one, other = open_session(), open_session()
    one.begin()
    one._connection.execute("ROLLBACK")  # so that there is nothing to commit
    with pytest.raises(Exception, match="could not commit"):
        one.commit()
    other.may_wait = False
    other.begin()
    other.rollback()


class Stubborn:
    """A connection that, for a while, fails what begins so."""

    def __init__(self, connection, text):
        self.connection, self.text = connection, text

    def __getattr__(self, name):
        return getattr(self.connection, name)

    def execute(self, text, *values):
        if self.text is not None and text.startswith(self.text):
            message = "disk I/O error"
            raise sqlite3.OperationalError(message)
        return self.connection.execute(text, *values)


def test_a_failed_rollback_hands_the_turn_on_and_is_made_up_for(path, open_session, caplog):
    one, other = open_session(), open_session()
    one.begin()
    one._connection.execute("UPDATE one SET x = x + 1")
    connection = one._connection
    one._connection = Stubborn(connection, "ROLLBACK")
    one.rollback()  # whoever rolls back has an error of his own to tell
    assert "could not be undone: disk I/O error" in caplog.text
    assert other._turn._lock(other._turn._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    other._turn.end()
    with pytest.raises(UnavailableError, match="could not be undone"):
        one.begin()
    one._connection.text = None
    one.begin()
    one.rollback()
    other.begin()
    assert commits(other) == 0
    other.commit()


def test_what_goes_wrong_after_a_commit_keeps_no_turn(open_session, monkeypatch):
    one, other = open_session(), open_session()
    one.begin()

    def fail(_):
        message = "made by the test"
        raise RuntimeError(message)

    monkeypatch.setattr(one._wal, "after_commit", fail)
    with pytest.raises(RuntimeError, match="made by the test"):
        one.commit()
    other.may_wait = False
    other.begin()
    other.rollback()


def test_a_program_that_knows_nothing_of_turns_is_waited_for(path, open_session):
    session = open_session()
    stranger = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    stranger.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.05, stranger.execute, ("COMMIT",))
    timer.start()
    session.begin()
    session.commit()
    timer.join()
    stranger.close()


def test_where_there_is_no_flock_the_lock_is_tried_until_it_comes(path, monkeypatch, caplog):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    one, other = (SqliteSession(path, SqliteCompiler(), writer=True) for _ in range(2))
    with caplog.at_level(logging.INFO):
        one.begin()
    assert "there is no flock" in caplog.text
    came = threading.Event()

    def wait():
        other.begin()
        came.set()
        other.commit()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not came.wait(0.05)
    one.commit()
    thread.join(20)
    assert came.is_set()
    one.close()
    other.close()
