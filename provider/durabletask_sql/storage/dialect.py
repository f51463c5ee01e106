"""The one module that names SQL dialects: how a statement built once with SQLAlchemy Core reaches a raw driver.

A statement may work on a batch of rows, its *source*: `v`, with an `ord` column that numbers them. On PostgreSQL it is
unnest over array parameters, or plain parameters for a single row, which most batches are: arrays of one would nearly
double the server's time for such a statement. On SQLite it is a VALUES list, padded with NULL rows to a few sizes so that
the texts stay cached (a join or `ord IS NOT NULL` passes the padding over). Texts are compiled once and run without
SQLAlchemy.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Integer,
    LargeBinary,
    Select,
    SmallInteger,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    column,
    func,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy import values as sql_values
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.sql.dml import Delete, Insert, Update
from sqlalchemy.sql.selectable import CTE, FromClause, SelectBase
from sqlalchemy.types import TypeEngine

from durabletask_sql.storage.binary import Encoder, encoder

BIGINT, INTEGER, SMALLINT, TEXT, BYTES = BigInteger(), Integer(), SmallInteger(), Text(), LargeBinary()
_ZERO, _ONE = literal_column("0", INTEGER), literal_column("1", INTEGER)
POSTGRESQL = PGDialect_psycopg()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

Row = tuple[Any, ...]
Executable = SelectBase | Insert | Update | Delete
Build = Callable[[FromClause], Executable]


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """A statement, built once for each dialect (and, on SQLite, each size of its source).

    `table` is what it touches, for telling which one a lock timeout met. `columns` describe the source, if it has one.
    `counted`: it must meet as many rows as its source has, else it fails: a write, or a locking read.
    """

    table: str
    build: Build
    columns: Mapping[str, TypeEngine[Any]] = field(default_factory=dict)
    counted: bool = False


@dataclass(frozen=True, slots=True)
class Compiled:
    """A statement as SQLite takes it. `before` and `after` name the scalars around its VALUES list."""

    text: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    size: int = 0
    constants: Mapping[str, object] = field(default_factory=dict)


def no_source(build: Callable[[], Executable]) -> Build:
    """Return the builder of a statement that works on scalars alone."""
    return lambda _: build()


def hub_of(v: FromClause) -> ColumnElement[int]:
    """Return the hub, to be compared with a table's in a statement over a source.

    On PostgreSQL it is a column of the source: with a constant the planner, as long as it takes a table for small, may
    read the whole hub by some index and look each row up in the source.
    """
    return bindparam("hub", type_=INTEGER) if isinstance(v, CTE) else v.c.hub_id


def unindexed(col: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a column in a form that no index serves, so that the planner takes the one meant for the statement."""
    return col + _ZERO


def by_columns(table: Table, v: FromClause, *names: str) -> ColumnElement[bool]:
    """Return the condition that a row's hub and these columns are in the source, in the form that an index serves.

    On PostgreSQL the statement becomes a join with the source: a list of rows (IN) would be sorted out first. SQLite would
    use an index for the first of the columns alone, so there a join finds the rows.
    """
    if isinstance(v, CTE):
        found = table.alias("found")
        joined = v.join(found, and_(found.c.hub_id == hub_of(v), *(found.c[name] == v.c[name] for name in names)))
        return literal_column(f"{table.name}.rowid").in_(select(literal_column("found.rowid")).select_from(joined))
    return and_(*(table.c[name] == v.c[name] for name in ("hub_id", *names)))


def keyed(table: Table, v: FromClause, *also: str) -> ColumnElement[bool]:
    """Return the condition that a queue row's (partition, seq) is in the source, in the form that finds it by key.

    `also` are columns that must be in it as well.
    """
    if isinstance(v, CTE):  # SQLite, where `seq` alone is the key
        return and_(unindexed(table.c.hub_id) == hub_of(v), table.c.seq.in_(select(v.c.seq)),
                    *(unindexed(table.c[name]).in_(select(v.c[name])) for name in ("partition", *also)))
    return by_columns(table, v, "partition", "seq", *also)


def locked(v: FromClause, build: Callable[[], SelectBase]) -> FromClause:
    """Return the rows of a locking query over a source; on SQLite, where the write lock covers all, the source."""
    return v if isinstance(v, CTE) else build().subquery("locked")


def same_row(table: FromClause, v: FromClause, found: FromClause) -> ColumnElement[bool]:
    """Return the condition that a queue row is one of those found (with hub, partition and seq), looked up by key."""
    plain = unindexed if isinstance(v, CTE) else _as_it_is
    return and_(plain(table.c.hub_id) == found.c.hub_id, plain(table.c.partition) == found.c.partition,
                table.c.seq == found.c.seq)


def by_seq(table: FromClause, v: FromClause) -> ColumnElement[bool]:
    """Return the condition that a queue row is the one that a row of the source names, looked up by key."""
    plain = unindexed if isinstance(v, CTE) else _as_it_is
    return and_(plain(table.c.hub_id) == hub_of(v), plain(table.c.partition) == v.c.partition, table.c.seq == v.c.seq)


def in_rows(table: Table, v: FromClause, found: SelectBase) -> ColumnElement[bool]:
    """Return the condition that a queue row is among those that a query of `rows_of` finds."""
    if isinstance(v, CTE):
        rows = found.subquery()
        return and_(unindexed(table.c.hub_id) == bindparam("hub", type_=INTEGER), table.c.seq.in_(select(rows.c.seq)))
    return tuple_(*rows_of(table)).in_(found)


def in_order(table: Table, v: FromClause, condition: Callable[[FromClause], ColumnElement[bool]]) -> ColumnElement[bool]:
    """Return the condition that a queue row meets another one, its rows being locked in the order of their keys first.

    An update or a delete alone locks rows in the order of its plan (I7). On SQLite the write lock covers all.
    """
    if isinstance(v, CTE):
        return condition(table)
    found = table.alias("found")
    return tuple_(*rows_of(table)).in_(
        select(*rows_of(found)).where(condition(found)).order_by(found.c.partition, found.c.seq)
        .with_for_update(of=found))


def listed(v: FromClause, name: str) -> Select[Any]:
    """Return the query of the texts in a parameter that is a list in JSON, as long as it may be."""
    given = bindparam(name, type_=TEXT)
    if isinstance(v, CTE):
        return select(func.json_each(given).table_valued("value", name="listed").c.value)
    return select(func.json_array_elements_text(cast(given, JSON)).table_valued("value", name="listed").c.value)


def rows_of(table: FromClause) -> tuple[ColumnElement[Any], ...]:
    """Return the columns that name a queue row."""
    return table.c.hub_id, table.c.partition, table.c.seq


def _as_it_is(col: ColumnElement[Any]) -> ColumnElement[Any]:
    return col


def insert_new(table: Table, v: FromClause) -> Insert:
    """Return an insert that passes over keys which exist."""
    return (sqlite_insert if isinstance(v, CTE) else postgres_insert)(table).on_conflict_do_nothing()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement as PostgreSQL takes it: for each of its numbered parameters its name, its encoder, and its place.

    The place is that of the column in the source; -1: it is a scalar.
    """

    text: bytes
    parameters: tuple[tuple[str, Encoder, int], ...]
    constants: Mapping[str, object]


class PostgresCompiler:
    """Compiles for libpq: binary parameters, every one cast, so that a text is always the same statement."""

    def __init__(self) -> None:
        """Begin with nothing compiled."""
        self._cache: dict[tuple[Statement, bool], Prepared] = {}

    def compile(self, statement: Statement, rows: int) -> Prepared:
        """Return the statement's text for so many rows, with its parameters: one is for a single row, one for more."""
        single = rows == 1
        found = self._cache.get((statement, single))
        if found is None:
            built = statement.build(self._source(statement, single=single))
            if statement.counted:
                # Raises by itself: COMMIT is in the same flush, a count read in Python would come too late.
                if isinstance(built, Delete | Insert | Update):
                    built = built.returning(_ONE.label("one"))
                counted = select(func.count()).select_from(built.cte("met")).scalar_subquery()
                built = select(_ONE // case((counted == bindparam("expected", type_=BIGINT), _ONE), else_=_ZERO))
            found = self._cache[statement, single] = self.prepare(built, statement.columns)
        return found

    @staticmethod
    def prepare(statement: Executable, columns: Iterable[str] = ()) -> Prepared:
        """Return an SQLAlchemy statement's text with its parameters; `columns` are those of its source."""
        compiled = statement.compile(dialect=POSTGRESQL)
        numbers: dict[str, int] = {}
        text = re.sub(r"%\((\w+)\)s", lambda found: f"${numbers.setdefault(found[1], len(numbers) + 1)}", str(compiled))
        places = {f"v_{name}": place for place, name in enumerate(columns)}
        parameters = tuple((name, encoder(compiled.binds[name].type), places.get(name, -1)) for name in numbers)
        return Prepared(text.replace("%%", "%").encode(), parameters, _constants(compiled.params))

    @staticmethod
    def parameters(prepared: Prepared, rows: Sequence[Row], scalars: Mapping[str, object]) -> list[bytes | None]:
        """Return the columns of a batch, as arrays unless it is a single row, and the scalars, as binary parameters."""
        single, hub = len(rows) == 1, scalars.get("hub")
        named = {**prepared.constants, **scalars, "expected": len(rows), "v_hub_id": hub if single else [hub] * len(rows)}
        given = rows[0] if single else tuple(zip(*rows, strict=True))
        return [encode(named[name] if place < 0 else given[place]) for name, encode, place in prepared.parameters]

    @staticmethod
    def _source(statement: Statement, *, single: bool) -> FromClause:
        if not statement.columns:
            return select(_ONE).subquery()
        columns = {"hub_id": INTEGER, **statement.columns}
        if single:
            given = (cast(bindparam(f"v_{name}", type_=kind), kind).label(name) for name, kind in columns.items())
            return select(literal_column("1", BIGINT).label("ord"), *given).subquery("v")
        arrays = [bindparam(f"v_{name}", type_=ARRAY(kind)) for name, kind in columns.items()]
        named = [column(name, kind) for name, kind in columns.items()]
        return func.unnest(*arrays).table_valued(*named, with_ordinality="ord", name="v").render_derived()


class SqliteCompiler:
    """Compiles for the standard library's sqlite3: one text for each size of the source."""

    def __init__(self) -> None:
        """Begin with nothing compiled."""
        self._dialect = SQLiteDialect_pysqlite()
        self._patterns: dict[Statement, Compiled] = {}
        self._cache: dict[tuple[Statement, int], Compiled] = {}

    def compile(self, statement: Statement, rows: int) -> Compiled:
        """Return the text for at least so many rows."""
        size = next(size for size in SIZES if size >= rows) if statement.columns else 0
        found = self._cache.get((statement, size))
        if found is None:
            found = self._cache[statement, size] = self._compile(statement, size)
        return found

    def _compile(self, statement: Statement, size: int) -> Compiled:
        """Repeat the one row of the pattern: SQLAlchemy takes tens of milliseconds for hundreds of them."""
        pattern = self._patterns.get(statement)
        if pattern is None:
            pattern = self._patterns[statement] = self._pattern(statement)
        if not size:
            return pattern
        row = f"({', '.join('?' * (len(statement.columns) + 1))})"
        before, values, after = pattern.text.partition(f"VALUES {row}")
        assert values, statement.table
        return replace(pattern, text=f"{before}{values}{f', {row}' * (size - 1)}{after}", size=size)

    def _pattern(self, statement: Statement) -> Compiled:
        """Compile a statement for a source of one row, if it has one."""
        compiled = statement.build(self._source(statement)).compile(dialect=self._dialect)
        names = list(compiled.positiontup or ())
        inside = [at for at, name in enumerate(names) if name.startswith("v_")]
        first, last = (inside[0], inside[-1] + 1) if inside else (len(names), len(names))
        assert len(inside) == last - first == (len(statement.columns) + 1 if statement.columns else 0)
        return Compiled(str(compiled), tuple(names[:first]), tuple(names[last:]), 0, _constants(compiled.params))

    @staticmethod
    def parameters(compiled: Compiled, columns: int, rows: Sequence[Row],
                   scalars: Mapping[str, object]) -> list[object]:
        """Return the flat parameter list: scalars, numbered rows, padding, scalars."""
        named = {**compiled.constants, **scalars}
        flat = [named[name] for name in compiled.before]
        for number, row in enumerate(rows, 1):
            flat.append(number)
            flat.extend(row)
        if compiled.size:
            flat.extend([None] * ((compiled.size - len(rows)) * (columns + 1)))
        flat.extend(named[name] for name in compiled.after)
        return flat

    @staticmethod
    def _source(statement: Statement) -> FromClause:
        if not statement.columns:
            return select(_ONE).cte("v")
        columns = {"ord": BIGINT, **statement.columns}
        row = tuple(bindparam(f"v_{name}", type_=kind) for name, kind in columns.items())
        return sql_values(*(column(name, kind) for name, kind in columns.items()), name="v").data([row]).cte("v")


def _constants(parameters: Mapping[str, object]) -> dict[str, object]:
    """Return the literals that SQLAlchemy turned into parameters of their own."""
    return {name: value for name, value in parameters.items() if value is not None}
