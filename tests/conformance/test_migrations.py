"""The schema: what the migrations make is what the code believes, up and down, and newer ones are refused."""

from __future__ import annotations

import sqlite3
import subprocess
import sys

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from durabletask_sql.errors import SchemaError, SettingsError, UnavailableError
from durabletask_sql.storage import migrations
from durabletask_sql.storage.store import ensure_schema
from durabletask_sql.storage.tables import metadata
from durabletask_sql.storage.url import SQLITE, parse_url
from postgres import create_database

QUEUES = ("control_queue", "timers", "activity_queue")
# Small tables: a hub has a handful of partitions and hosts.
SMALL = ("partitions", "hosts", "task_hubs")


def test_the_migrated_database_is_what_the_tables_say(database_url):
    url = parse_url(database_url)
    migrations.upgrade(url)
    engine = sa.create_engine(url.alembic)
    with engine.connect() as connection:
        # Alembic cannot compare the index with a descending column: the next test does.
        context = MigrationContext.configure(connection, opts={
            "include_object": lambda _, name, *__: name != "ix_control_queue_held"})
        differences = compare_metadata(context, metadata)
    engine.dispose()
    assert differences == []


def test_the_migrated_indexes_are_those_of_the_tables(database_url, tmp_path, request):
    migrated = parse_url(database_url)
    migrations.upgrade(migrated)
    created = parse_url(f"sqlite:///{tmp_path / 'created.db'}" if migrated.dialect == SQLITE
                        else create_database(request.getfixturevalue("postgres_server")))
    engine = sa.create_engine(created.alembic)
    metadata.create_all(engine)
    engine.dispose()
    assert index_definitions(migrated) == index_definitions(created)


def index_definitions(url):
    if url.dialect == SQLITE:
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    else:
        query = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema()"
    engine = sa.create_engine(url.alembic)
    with engine.connect() as connection:
        found = {name: definition for name, definition in connection.execute(sa.text(query))
                 if "alembic" not in name}
    engine.dispose()
    return found


def test_it_goes_up_down_and_up_again(database_url):
    url = parse_url(database_url)
    states = []
    for step in (lambda: migrations.upgrade(url), lambda: migrations.downgrade(url, "base"), lambda: migrations.upgrade(url)):
        step()
        states.append(migrations.state(url))
    assert states == [migrations.SchemaState.CURRENT, migrations.SchemaState.MISSING, migrations.SchemaState.CURRENT]


def test_hosts_that_start_at_once_make_the_schema_once(database_url):
    """As processes do: with nothing in common but the database."""
    command = [sys.executable, "-m", "durabletask_sql", "schema", "upgrade", "--database", database_url]
    started = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    told = [(process.communicate()[1], process.returncode) for process in started]
    assert [code for _, code in told] == [0, 0, 0], told
    assert migrations.state(parse_url(database_url)) is migrations.SchemaState.CURRENT


def test_a_schema_of_a_newer_program_is_refused_and_left_alone(database_url):
    url = parse_url(database_url)
    migrations.upgrade(url)
    engine = sa.create_engine(url.alembic)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    for upgrade in (True, False):
        with pytest.raises(SchemaError, match="newer than this program"):
            ensure_schema(url, upgrade=upgrade)
    assert migrations.revision(url) == "9999"


def test_a_missing_schema_is_refused_with_the_command_to_run(postgres_url):
    with pytest.raises(SchemaError, match="durabletask-sql schema upgrade --database"):
        ensure_schema(parse_url(postgres_url), upgrade=False)


def test_an_unreachable_server_is_told_without_its_password():
    with pytest.raises(UnavailableError) as caught:
        ensure_schema(parse_url("postgresql://user:secret@127.0.0.1:1/db"), upgrade=False)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "sqlite:///", "sqlite:///:memory:", "nonsense", "",
                                 "sqlite:////no/such/folder/x.db", "sqlite:////tmp"])
def test_urls_that_cannot_be_used_are_refused(url):
    with pytest.raises(SettingsError):
        parse_url(url)


@pytest.mark.parametrize("table", QUEUES)
def test_sqlite_never_gives_out_a_sequence_twice(tmp_path, table):
    url = parse_url(f"sqlite:///{tmp_path / 'hub.db'}")
    migrations.upgrade(url)
    with sqlite3.connect(url.location) as connection:
        ddl = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
    connection.close()
    assert "seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT" in ddl
