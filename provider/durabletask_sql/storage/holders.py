"""Who may hold a lock that others wait for, in words for an operator."""

from sqlalchemy import BigInteger, ColumnElement, Text, cast, column, extract, func, literal_column, select, table

from durabletask_sql.storage.session import Session
from durabletask_sql.storage.tables import metadata

_MOST = literal_column("3", BigInteger)
_OLD_SECONDS = literal_column("1", BigInteger)  # what this program does in a transaction is over by then
_TABLES: list[ColumnElement[str]] = [literal_column(f"'{name}'", Text) for name in sorted(metadata.tables)]
_MODES: list[ColumnElement[str]] = [literal_column(f"'{mode}'", Text) for mode in (
    "RowShareLock", "RowExclusiveLock", "ShareRowExclusiveLock", "AccessExclusiveLock")]

_sessions = table("pg_stat_activity", column("pid"), column("application_name"), column("usename"), column("state"),
                  column("datname"), column("xact_start"))
_locks = table("pg_locks", column("pid"), column("relation"), column("mode"))
_relations = table("pg_class", column("oid"), column("relname"))

_age = cast(extract("epoch", func.clock_timestamp() - _sessions.c.xact_start), BigInteger)
# A session that holds a row of a table holds its table in one of these modes.
_HOLDERS = (
    select(cast(_sessions.c.pid, BigInteger), cast(_sessions.c.application_name, Text), cast(_sessions.c.usename, Text),
           cast(_sessions.c.state, Text), _age)
    .where(_sessions.c.datname == func.current_database(), _age > _OLD_SECONDS, _sessions.c.pid.in_(
        select(_locks.c.pid).select_from(_locks.join(_relations, _locks.c.relation == _relations.c.oid))
        .where(_relations.c.relname.in_(_TABLES), _locks.c.mode.in_(_MODES))))
    .order_by(_sessions.c.xact_start).limit(_MOST))


def holders(session: Session, *, is_sqlite: bool) -> str:
    """Return which sessions have had a transaction open on this program's tables for a while, oldest first."""
    if is_sqlite:
        return "another process writes to the file, SQLite does not tell which"
    found = [f"pid {pid} (application {application!r}, user {user!r}, {state}), whose transaction has been open for "
             f"{age} s" for pid, application, user, state, age in session.execute(_HOLDERS, {}).rows]
    return "held by " + " or ".join(found) if found else "no session with an old transaction is to be seen"
