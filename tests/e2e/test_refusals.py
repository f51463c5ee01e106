"""Bad input to `serve` ends it with exit code 1 and one sentence that says what is wrong and what to do."""

from __future__ import annotations

import socket
import sqlite3

import psycopg
import pytest

from durabletask_sql.storage import migrations
from durabletask_sql.storage.url import parse_url


def refused(done, *words):
    """One line on standard error with these words, nothing on standard output, exit code 1."""
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.startswith("durabletask-sql: ")
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(("arguments", "words"), [
    (("--database", "mysql://there/tasks"), ("'mysql://there/tasks'", "unknown scheme", "postgresql://")),
    (("--database", "tasks.db"), ("'tasks.db'", "unknown scheme", "sqlite:///")),
    (("--database", ""), ("unknown scheme", "sqlite:///")),
    (("--database", "sqlite:///no/such/folder/tasks.db"), ("no/such/folder", "does not exist", "create it")),
    (("--database", "sqlite:///garbage.db"), ("garbage.db", "not a database")),
    (("--database", "postgresql://user:secret@127.0.0.1:1/tasks"), ("user:***@127.0.0.1:1", "refused")),
    (("--database", "postgresql://user:secret@localhost:1/tasks"), ("user:***@localhost:1", "refused")),
    (("--database", "postgresql://user@127.0.0.1:port/tasks"), ("127.0.0.1:port", "port")),
    (("--listen", "4001"), ("--listen", "'4001'", "HOST:PORT")),
    (("--listen", ""), ("--listen", "''", "HOST:PORT")),
    (("--listen", "127.0.0.1:99999"), ("65535",)),
    (("--listen", "no.such.host.invalid:0"), ("no.such.host.invalid", "cannot be resolved")),
    (("--listen", "192.0.2.1:0"), ("192.0.2.1:0", "choose an address of this machine")),
    (("--task-hub", ""), ("--task-hub", "''")),
    (("--task-hub", " padded "), ("--task-hub", "' padded '")),
    (("--partitions", "0"), ("--partitions 0", "1 to 1024")),
], ids=lambda value: " ".join(value) if isinstance(value, tuple) else value)
def test_bad_options_are_refused_in_one_sentence(installed, tmp_path, arguments, words):
    (tmp_path / "garbage.db").write_text("This is a letter and no database, and it is long enough to be taken for one." * 20)
    defaults = () if "--listen" in arguments else ("--listen", "127.0.0.1:0")
    done = installed.run("serve", *arguments, *defaults, folder=tmp_path)
    refused(done, *words)
    assert "secret" not in done.stderr


@pytest.mark.parametrize(("variable", "value"), [
    ("DURABLETASK_SQL_DATABASE", "mysql://x"), ("DURABLETASK_SQL_LISTEN", "nowhere"), ("DURABLETASK_SQL_TASK_HUB", "a,,b")])
def test_bad_variables_are_refused_by_name_or_value(installed, tmp_path, variable, value):
    done = installed.run("serve", folder=tmp_path, variables={variable: value})
    refused(done, variable if variable != "DURABLETASK_SQL_DATABASE" else value)


def test_a_port_that_is_taken_is_refused(installed, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused(installed.run("serve", "--listen", address, folder=tmp_path), address, "taken", "--listen")


def test_an_empty_postgresql_is_refused_with_the_command_to_run(installed, tmp_path, postgres_url):
    done = installed.run("serve", "--database", postgres_url, "--listen", "127.0.0.1:0", folder=tmp_path)
    refused(done, f"durabletask-sql schema upgrade --database {postgres_url}", "--upgrade")


def test_a_schema_that_is_old_on_postgresql_is_refused_with_the_command_to_run(installed, tmp_path, postgres_url):
    migrations.upgrade(parse_url(postgres_url), "0001")
    done = installed.run("serve", "--database", postgres_url, "--listen", "127.0.0.1:0", folder=tmp_path)
    refused(done, "older schema 0001", f"durabletask-sql schema upgrade --database {postgres_url}", "--upgrade")


@pytest.mark.parametrize("command", [("serve", "--listen", "127.0.0.1:0"), ("serve", "--listen", "127.0.0.1:0", "--upgrade"),
                                     ("schema", "upgrade"), ("schema", "check")], ids=" ".join)
def test_a_database_of_a_newer_version_is_refused(installed, tmp_path, database_url, command):
    url = parse_url(database_url)
    migrations.upgrade(url)
    with (sqlite3.connect(url.location) if url.dialect == "sqlite" else psycopg.connect(database_url)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    refused(installed.run(*command, "--database", database_url, folder=tmp_path), "9999", "newer", "upgrade durabletask-sql")


def test_a_database_that_is_not_there_is_told(installed, tmp_path, postgres_url):
    missing = postgres_url.rpartition("/")[0] + "/nowhere"
    refused(installed.run("serve", "--database", missing, "--listen", "127.0.0.1:0", folder=tmp_path), missing, "does not exist")
