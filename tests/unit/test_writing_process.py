"""Who writes to a SQLite file, read from the kernel's list of locks."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

import pytest

from durabletask_sql.storage.writing_process import writing_process


@pytest.fixture
def path(tmp_path):
    """A file with another's write transaction open."""
    file = tmp_path / "hub.db"
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (x)")
    yield file, connection
    connection.close()


def listed(path, tmp_path, *lines):
    """A list of locks in which FILE stands for this file's index."""
    index = Path(f"{path}-shm").stat()
    found = tmp_path / "locks"
    found.write_text("\n".join(lines).replace(
        "FILE", f"{os.major(index.st_dev):02x}:{os.minor(index.st_dev):02x}:{index.st_ino}"))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="no other kernel lists locks")
def test_the_process_is_named_while_its_transaction_is_open(path, tmp_path):
    file, connection = path
    link = tmp_path / "link.db"
    link.symlink_to(file)
    assert writing_process(str(file)) == "another process"
    connection.execute("BEGIN IMMEDIATE")
    for name in (file, link):
        assert writing_process(str(name)).startswith(f"another process (pid {os.getpid()}, '")
    connection.execute("COMMIT")
    assert writing_process(str(file)) == "another process"


@pytest.mark.parametrize("line", [
    "1: POSIX  ADVISORY  READ 77 FILE 120 120", "1: POSIX  ADVISORY  WRITE 77 FILE 121 121",
    "1: POSIX  ADVISORY  WRITE 77 fe:00:1 120 120", "1: FLOCK  ADVISORY  WRITE 77 FILE 0 EOF",
    "1: -> POSIX  ADVISORY  WRITE 77 FILE 120 120", "1: POSIX  ADVISORY  WRITE 0 FILE 120 120",
    "1: POSIX  ADVISORY  WRITE -1 FILE 120 120", ""])
def test_other_locks_tell_nothing(path, tmp_path, line):
    file, _ = path
    assert writing_process(str(file), listed(file, tmp_path, line)) == "another process"


def test_a_process_whose_name_is_not_to_be_had_is_named_by_its_number(path, tmp_path):
    file, _ = path
    locks = listed(file, tmp_path, "1: POSIX  ADVISORY  WRITE 999999999 FILE 0 EOF")
    assert writing_process(str(file), locks) == "another process (pid 999999999)"


def test_where_there_is_no_list_nothing_is_told(path, tmp_path):
    file, _ = path
    assert writing_process(str(file), tmp_path / "none") == "another process"
    assert writing_process(str(tmp_path / "no.db")) == "another process"
