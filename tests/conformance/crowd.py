"""A database with 100,000 instances and what belongs to them, made in seconds; and how statements meet it.

Two hubs hold the same ids. Most instances have ended; each other status has 100, evenly spread.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import psycopg
from psycopg import sql as literals
from sqlalchemy.sql.dml import Insert

from durabletask_sql.ids import partition_of
from durabletask_sql.model.queries import InstancePage, InstanceQuery
from durabletask_sql.model.status import Status
from durabletask_sql.storage import migrations
from durabletask_sql.storage.dialect import PostgresCompiler, Prepared, SqliteCompiler, Statement
from durabletask_sql.storage.postgres import PostgresSession, connect
from durabletask_sql.storage.queries import read_page
from durabletask_sql.storage.sqlite import SqliteSession
from durabletask_sql.storage.tables import metadata
from durabletask_sql.storage.url import SQLITE, parse_url

COUNT, OTHERS = 100_000, 10_000
HUB, OTHER_HUB = 1001, 1002
PARTITIONS = 16
SECOND = 1_000_000
EPOCH, HOST, TOKEN = 5, 77, 99
NUMBERS = (0, 10, 50_000, 90_000, 99_990)  # those that statements are about
_STATUSES = {0: Status.RUNNING, 1: Status.PENDING, 2: Status.SUSPENDED, 3: Status.FAILED, 4: Status.TERMINATED}
_KINDS = ("order", "order", "order", "report")


@dataclass(frozen=True)
class Person:
    """One instance of the crowd."""

    number: int
    instance_id: str
    partition: int
    status: Status
    created_at: int
    completed_at: int | None


def person(number: int) -> Person:
    instance_id = f"{_KINDS[number % 4]}-{number * 7919 % COUNT:06}"
    status = _STATUSES.get(number % 1000, Status.COMPLETED)
    created_at = number * SECOND
    return Person(number, instance_id, partition_of(instance_id, PARTITIONS), status, created_at,
                  created_at + SECOND // 2 if status.is_terminal else None)


@cache
def people() -> list[Person]:
    return [person(number) for number in range(COUNT)]


def build(url: str) -> None:
    """Fill a database whose schema is there."""
    everybody = people()
    parsed = parse_url(url)
    migrations.upgrade(parsed)
    if parsed.dialect == SQLITE:
        with sqlite3.connect(parsed.location) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            for table, columns, rows in _tables(everybody):
                marks = ", ".join("?" * len(columns))
                connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)
        connection.close()
        return
    with psycopg.connect(parsed.location) as connection:
        for table, columns, rows in _tables(everybody):
            connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")  # statistics come when a test says
            with connection.cursor().copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)


def _tables(everybody: Sequence[Person]) -> Iterator[tuple[str, Sequence[str], Iterable[Sequence[Any]]]]:
    """Yield each table with its columns and rows."""
    hubs = ((HUB, everybody), (OTHER_HUB, everybody[:OTHERS]))

    def rows(make: Callable[[int, Person], Iterable[Sequence[Any]]]) -> Iterator[Sequence[Any]]:
        return (row for hub, members in hubs for member in members for row in make(hub, member))

    yield "task_hubs", ("hub_id", "name", "partition_count", "created_at"), [
        (HUB, "default", PARTITIONS, 0), (OTHER_HUB, "other", PARTITIONS, 0)]
    yield "partitions", ("hub_id", "partition", "owner", "epoch"), [
        (hub, partition, HOST, EPOCH) for hub, _ in hubs for partition in range(PARTITIONS)]
    yield "instances", (
        "hub_id", "partition", "instance_id", "execution_id", "generation", "row_version", "name", "status", "created_at",
        "updated_at", "completed_at", "history_count", "last_turn_at", "parent_instance_id"), rows(lambda hub, one: [(
            hub, one.partition, one.instance_id, "e", 0, 1, "flow", int(one.status), one.created_at, one.created_at,
            one.completed_at, 1, 1, f"parent-{one.number // 100}" if one.number % 10 == 0 else None)])
    yield "history", ("hub_id", "partition", "instance_id", "execution_id", "first_sequence", "event_count", "events"), rows(
        lambda hub, one: [(hub, one.partition, one.instance_id, "e", 0, 1, b"\x1a\x00")])
    yield "payloads", ("hub_id", "partition", "instance_id", "execution_id", "payload_id", "content"), rows(
        lambda hub, one: [(hub, one.partition, one.instance_id, "e", which, b"{}") for which in (0, 1)])
    yield "entities", ("hub_id", "partition", "instance_id", "row_version", "state", "modified_at", "lock_instance_id",
                       "lock_execution_id", "lock_section_id"), rows(lambda hub, one: [
        (hub, one.partition, one.instance_id, 1, b"{}", one.created_at,
         *((one.instance_id, "e", "s") if one.number % 20 == 0 else (None, None, None)))] if one.number % 10 == 0 else [])
    yield "hosts", ("hub_id", "host_id", "name", "machine", "pid", "started_at", "heartbeat_at", "expires_at"), [
        (HUB, HOST, "", "", 1, "", 0, COUNT * SECOND)]
    # Of ten instances one has messages, timers and tasks: some that are held, some that nobody holds.
    queued = ("hub_id", "partition", "seq", "instance_id", "execution_id", "kind", "held_epoch", "events")
    yield "control_queue", queued, rows(lambda hub, one: [
        (hub, one.partition, _seq(hub, one, place), one.instance_id, "e", 1, EPOCH if place < 3 else 0, b"\x1a\x00")
        for place in range(5) if one.number % 10 == 0])
    yield "timers", (*queued, "fire_at"), rows(lambda hub, one: [
        (hub, one.partition, _seq(hub, one, place), one.instance_id, "e", 1, EPOCH if place < 3 else 0, b"\x1a\x00",
         one.created_at + place) for place in range(5) if one.number % 10 == 0])
    yield "activity_queue", ("hub_id", "partition", "seq", "instance_id", "execution_id", "task_id", "name", "host",
                             "token", "event"), rows(lambda hub, one: [
        (hub, one.partition, _seq(hub, one, place), one.instance_id, "e", place, "act",
         *((HOST, TOKEN + one.number) if place and (one.number % 500 == 0 or one.number in NUMBERS) else (0, 0)), b"")
        for place in range(2) if one.number % 10 == 0])
    yield "quarantine", ("hub_id", "partition", "source", "seq", "instance_id", "cause", "attempts", "set_aside_at"), rows(
        lambda hub, one: [(hub, one.partition, 0, _seq(hub, one, 1), one.instance_id, b"", 5, one.created_at)]
        if one.number % 10 == 0 else [])
    yield "quarantine_rows", ("hub_id", "partition", "item_source", "item_seq", "source", "seq", "instance_id", "kind",
                              "content"), rows(lambda hub, one: [
        (hub, one.partition, 0, _seq(hub, one, 1), 0, _seq(hub, one, 1 + place), one.instance_id, 1, b"\x1a\x00")
        for place in range(3) if one.number % 10 == 0])


def _seq(hub: int, one: Person, place: int) -> int:
    return (hub * COUNT + one.number) * 10 + place


# What statements are given: enough rows to show a loop, few enough that a scan stands out.

SOME = [person(number) for number in NUMBERS]
COLUMNS: dict[str, Callable[[Person, bool], Any]] = {
    "partition": lambda one, new: one.partition + (PARTITIONS if new else 0), "seq": lambda one, _: _seq(HUB, one, 1),
    "instance_id": lambda one, new: f"new-{one.number}" if new else one.instance_id,
    "execution_id": lambda *_: "e", "generation": lambda *_: 0, "row_version": lambda *_: 2, "name": lambda one, new: f"new-{one.number}" if new else "flow",
    "version": lambda *_: None, "status": lambda one, _: int(one.status), "created_at": lambda one, _: one.created_at,
    "updated_at": lambda one, _: one.created_at, "completed_at": lambda one, _: one.completed_at,
    "scheduled_at": lambda *_: None, "history_count": lambda *_: 1, "last_turn_at": lambda *_: 1,
    "custom_status": lambda *_: None, "failure": lambda *_: None, "parent_instance_id": lambda *_: None,
    "parent_execution_id": lambda *_: None, "parent_task_id": lambda *_: None, "parent_name": lambda *_: None,
    "parent_version": lambda *_: None, "tags": lambda *_: None, "trace": lambda *_: None, "task_id": lambda *_: 1,
    "host": lambda *_: 0, "token": lambda one, _: TOKEN + one.number, "event": lambda *_: b"", "events": lambda *_: b"",
    "kind": lambda *_: 1, "held_epoch": lambda *_: 0, "fire_at": lambda *_: 1, "first_sequence": lambda *_: 9,
    "event_count": lambda *_: 1, "refs": lambda *_: None, "payload_id": lambda _, new: 9 if new else 0,
    "content": lambda *_: b"", "unpacked_size": lambda *_: None, "cause": lambda *_: b"", "epoch": lambda *_: EPOCH + 1,
    "sections": lambda *_: None, "state": lambda *_: b"{}", "modified_at": lambda *_: 1, "lock_instance_id": lambda *_: None,
    "lock_execution_id": lambda *_: None, "lock_section_id": lambda *_: None,
    "new_execution_id": lambda *_: "next", "rewinds": lambda *_: 0, "partition_count": lambda *_: PARTITIONS, "host_id": lambda one, _: one.number + 1,
    "source": lambda *_: 0, "item_source": lambda *_: 0, "item_seq": lambda one, _: _seq(HUB, one, 9),
    "worker": lambda *_: "w", "attempts": lambda *_: 5, "set_aside_at": lambda *_: 1,
    "failed": lambda *_: 3, "suspect": lambda *_: 0, "owner": lambda *_: HOST, "next_owner": lambda *_: 0,
    "heir": lambda *_: 0, "room": lambda *_: 1_000, "heartbeat_at": lambda *_: 1,
}
SCALARS: dict[str, Any] = {
    "hub": HUB, "partition": SOME[0].partition, "epoch": EPOCH, "room": 20, "horizon": COUNT * SECOND // 20, "owner": HOST,
    "claim": TOKEN, "share": 1000, "held": 0, "now": 1, "instance_id": SOME[0].instance_id, "execution_id": "e",
    "after": -1, "after_at": -1, "limit": 3, "last": 9, "name": "act", "version": "1", "bytes": 4_000_000,
    "host_id": HOST, "seq": 1, "dead": HOST, "me": HOST, "tail": b"\x08\x01",
    "full": json.dumps([one.instance_id for one in SOME]),
}


def counts(statement: Statement) -> tuple[int, ...]:
    """How many rows a statement is tried with: there is a text for a single one, and one for more."""
    return (1, len(SOME)) if statement.columns else (0,)


def rows_for(statement: Statement, count: int, *, inserts: bool) -> list[tuple[Any, ...]]:
    """Return rows for the source of a statement: some of the crowd, or new ones for an insert."""
    unknown = set(statement.columns) - set(COLUMNS)
    assert not unknown, f"say in crowd.COLUMNS what {unknown} may hold"
    return [tuple(COLUMNS[name](one, inserts) for name in statement.columns) for one in SOME[:count]]


@dataclass(frozen=True)
class Cost:
    """What a statement did: rows that it fetched and pages that it touched, or steps of SQLite's machine; its plan."""

    rows: int
    pages: int
    steps: int
    scanned: frozenset[str]
    plan: str


class SqliteCrowd:
    """Runs statements on the SQLite crowd as the server's sessions do, and undoes them."""

    def __init__(self, url: str) -> None:
        self.session = SqliteSession(parse_url(url).location, SqliteCompiler(), writer=True)
        self._connection = self.session._connection

    def cost(self, statement: Statement, count: int) -> Cost:
        inserts = isinstance(statement.build(SqliteCompiler._source(statement)), Insert)
        return self.cost_for(statement, rows_for(statement, count, inserts=inserts))

    def cost_for(self, statement: Statement, rows: list[tuple[Any, ...]], **scalars: Any) -> Cost:
        compiled = SqliteCompiler().compile(statement, len(rows))
        return self._measure(compiled.text, lambda: self.session.send(statement, rows, **{**SCALARS, **scalars}))

    def cost_of_query(self, statement: Any) -> Cost:
        return self._measure(str(statement.compile(dialect=SqliteCompiler()._dialect)),
                             lambda: self.session.execute(statement, SCALARS))

    def rows(self, statement: Any) -> list[tuple[Any, ...]]:
        return self.session.execute(statement, SCALARS).rows

    def page(self, query: InstanceQuery) -> InstancePage:
        return read_page(self.session, HUB, query)

    def _measure(self, text: str, run: Callable[[], object]) -> Cost:
        plan = [row[3] for row in self._connection.execute(f"EXPLAIN QUERY PLAN {text}", [None] * text.count("?"))]
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        self.session.begin()
        self._connection.set_progress_handler(count, 10)
        try:
            run()
        finally:
            self._connection.set_progress_handler(None, 0)
            self.session.rollback()
        scanned = frozenset(step.split()[1] for step in plan if step.startswith("SCAN ")) & metadata.tables.keys()
        return Cost(0, 0, steps * 10, scanned, "\n".join(plan))

    def close(self) -> None:
        self.session.close()


class PostgresCrowd:
    """Explains statements on the PostgreSQL crowd under the settings of the server's sessions, and undoes them."""

    def __init__(self, url: str) -> None:
        self._compiler = PostgresCompiler()
        location = parse_url(url).location
        self.session = PostgresSession(location, self._compiler, shown=url, idle_timeout_ms=60_000, allow_unsafe=True)
        self._connection, _ = connect(location, shown=url, idle_timeout_ms=60_000, allow_unsafe=True)

    def cost(self, statement: Statement, count: int) -> Cost:
        return self._explain(self._compiler.compile(statement, count), self._values(statement, count))

    def cost_for(self, statement: Statement, rows: list[tuple[Any, ...]], **scalars: Any) -> Cost:
        return self._explain(self._compiler.compile(statement, len(rows)), self._given(statement, rows, **scalars))

    def nodes(self, statement: Statement, count: int) -> list[Mapping[str, Any]]:
        """The nodes of a statement's plan, which is not carried out."""
        prepared = self._compiler.compile(statement, count)
        return list(_nodes(self._plan("EXPLAIN (FORMAT JSON)", prepared, self._values(statement, count))))

    def indexes(self) -> dict[str, list[str]]:
        """The columns of each index."""
        return dict(self._connection.execute(
            "SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum) FROM pg_index i JOIN pg_class c "
            "ON c.oid = i.indexrelid JOIN pg_attribute a ON a.attrelid = c.oid GROUP BY c.relname").fetchall())

    @classmethod
    def _values(cls, statement: Statement, count: int) -> dict[str, Any]:
        inserts = isinstance(statement.build(PostgresCompiler._source(statement, single=False)), Insert)
        return {**cls._given(statement, rows_for(statement, count, inserts=inserts)), "expected": count}

    @staticmethod
    def _given(statement: Statement, rows: list[tuple[Any, ...]], **scalars: Any) -> dict[str, Any]:
        named = {**SCALARS, **scalars}
        columns = [list(column) for column in zip(*((named["hub"], *row) for row in rows), strict=True)]
        given = dict(zip(("v_hub_id", *(f"v_{name}" for name in statement.columns)), columns, strict=False))
        return {**named, **{name: column[0] if len(rows) == 1 else column for name, column in given.items()}}

    def cost_of_query(self, statement: Any) -> Cost:
        return self._explain(self._compiler.prepare(statement), SCALARS)

    def rows(self, statement: Any) -> list[tuple[Any, ...]]:
        return self.session.execute(statement, SCALARS).rows

    def page(self, query: InstanceQuery) -> InstancePage:
        return read_page(self.session, HUB, query)

    def _plan(self, explain: str, prepared: Prepared, named: Mapping[str, Any]) -> Mapping[str, Any]:
        values = {**prepared.constants, **named}
        given = ", ".join(literals.Literal(values[name]).as_string(self._connection) for name, *_ in prepared.parameters)
        self._connection.execute("PREPARE one AS " + prepared.text.decode())
        try:
            with self._connection.transaction(force_rollback=True):
                row = self._connection.execute(f"{explain} EXECUTE one" + (f"({given})" if given else "")).fetchone()
        finally:
            self._connection.execute("DEALLOCATE one")
        assert row is not None
        top: Mapping[str, Any] = row[0][0]["Plan"]
        return top

    def _explain(self, prepared: Prepared, named: Mapping[str, Any]) -> Cost:
        top = self._plan("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON)", prepared, named)
        nodes = list(_nodes(top))
        fetched = sum(int((node["Actual Rows"] + sum(node.get(f"Rows Removed by {why}", 0) for why in (
            "Filter", "Index Recheck"))) * node["Actual Loops"]) for node in nodes if "Relation Name" in node and "Scan" in
            node["Node Type"])
        scanned = frozenset(node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan")
        return Cost(fetched, top["Shared Hit Blocks"] + top["Shared Read Blocks"], 0, scanned, _outline(top))

    def close(self) -> None:
        self.session.close()
        self._connection.close()


def _outline(node: Mapping[str, Any], depth: int = 0) -> str:
    """Return a plan as indented lines."""
    shown = ("Node Type", "Relation Name", "Index Name", "Index Cond", "Filter", "Actual Rows", "Actual Loops",
             "Rows Removed by Filter")
    line = "  " * depth + ", ".join(f"{node[name]}" if name == "Node Type" else f"{name} {node[name]}"
                                    for name in shown if name in node)
    return "\n".join([line, *(_outline(below, depth + 1) for below in node.get("Plans", ()))])


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for below in node.get("Plans", ()):
        yield from _nodes(below)
