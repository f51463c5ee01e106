"""Errors of the SQLite file and its disk: everything waits, nobody is set aside, and the log says what to do."""

from __future__ import annotations

import asyncio
import logging
import sqlite3

import pytest

from dispatch.bench import Worker, finish, on_bench, schedule
from durabletask_sql.errors import UnavailableError
from durabletask_sql.storage.faults import RefusedError
from durabletask_sql.storage.sqlite_faults import fault
from tables import count

# As the driver raises them.
ERRORS = {
    sqlite3.SQLITE_PERM: (sqlite3.OperationalError, "let this user read and write it"),
    sqlite3.SQLITE_READONLY: (sqlite3.OperationalError, "let this user write to it"),
    sqlite3.SQLITE_CANTOPEN: (sqlite3.OperationalError, "see that its folder is there"),
    sqlite3.SQLITE_IOERR: (sqlite3.OperationalError, "look into its disk"),
    sqlite3.SQLITE_IOERR_FSYNC: (sqlite3.OperationalError, "look into its disk"),
    sqlite3.SQLITE_FULL: (sqlite3.OperationalError, "make room"),
    sqlite3.SQLITE_PROTOCOL: (sqlite3.OperationalError, "a disk of this machine"),
    sqlite3.SQLITE_NOTADB: (sqlite3.DatabaseError, "restore a backup"),
    sqlite3.SQLITE_CORRUPT: (sqlite3.DatabaseError, "restore a backup"),
}


def error_of(code):
    error = ERRORS[code][0]("what SQLite says")
    error.sqlite_errorcode = code
    return error


class Failing:
    """A connection whose statements that begin like `where` fail a few times; the others work."""

    def __init__(self, connection: sqlite3.Connection, where: str, code: int) -> None:
        self._connection = connection
        self._where = where
        self._code = code
        self.left = 3

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, text, *parameters):
        if self.left and text.startswith(self._where):
            self.left -= 1
            raise error_of(self._code)
        return self._connection.execute(text, *parameters)


@pytest.mark.parametrize("where", ["BEGIN IMMEDIATE", "WITH", "COMMIT"])
@pytest.mark.parametrize("code", ERRORS)
def test_an_error_of_the_file_sets_nobody_aside(tmp_path, caplog, code, where):
    url = f"sqlite:///{tmp_path / 'hub.db'}"

    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        await bench.answer(await worker.turn(), *schedule("act"))
        task = await worker.activity()
        (session,) = bench.runtime.dispatcher._committer._database.committer._sessions
        session._connection = failing = Failing(session._connection, where, code)
        async with asyncio.timeout(20):
            await bench.result(task)
            while await bench.status("one") != "COMPLETED":
                await bench.answer(await worker.turn(), finish())
        assert not failing.left
        assert count(url, "quarantine") == 0

    with caplog.at_level(logging.WARNING, "durabletask_sql"):
        on_bench(url, test)
    told = [record.getMessage() for record in caplog.records if "what SQLite says" in record.getMessage()]
    assert told
    assert all(ERRORS[code][1] in line and "hub.db" in line for line in told)


@pytest.mark.parametrize(("text", "values"), [("INSERT INTO one VALUES (?)", ["x" * 2000]), ("INSERT INTO one VALUES (0)", ()),
                                              ("no statement", ())])
def test_what_is_wrong_with_a_statement_or_its_values_is_the_items_own(text, values):
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE one (a CHECK (a <> 0))")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1000)
    with pytest.raises(sqlite3.Error) as found:
        connection.execute(text, values)
    assert isinstance(fault(found.value, "hub.db"), RefusedError)


def test_a_file_that_is_written_over_is_the_databases_failure(tmp_path):
    path = tmp_path / "hub.db"
    path.write_bytes(b"something else, and much of it" * 1000)
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.Error) as found:
        connection.execute("CREATE TABLE one (a)")
    error = fault(found.value, str(path))
    assert isinstance(error, UnavailableError)
    assert "something has written over it" in str(error)
