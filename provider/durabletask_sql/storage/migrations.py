"""The schema's version: what it is, whether it fits this program, and the way up.

Runs from a checkout (migrations/ beside provider/) and from an installed wheel (which carries the same files).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import SQLAlchemyError

from durabletask_sql.errors import SchemaError, UnavailableError
from durabletask_sql.storage.faults import one_line
from durabletask_sql.storage.url import DatabaseUrl

_LOCK = 0x64747371  # "dtsq": one migration at a time on a PostgreSQL database


class SchemaState(Enum):
    """How a database's schema compares with this program's."""

    MISSING = "missing"
    OLDER = "older"
    CURRENT = "current"
    NEWER = "newer"


def script_folder() -> Path:
    """Return the folder of the migrations: a checkout's own, else the one inside the installed package."""
    package = Path(__file__).resolve().parent.parent
    checkout = package.parent.parent / "migrations"
    if package.parent.name == "provider" and (checkout / "env.py").is_file():
        return checkout
    return package / "_migrations"


def _config(connection: sa.Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(script_folder()))
    config.attributes["connection"] = connection
    return config


@contextmanager
def _connect(url: DatabaseUrl) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url.alembic, poolclass=sa.NullPool)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _manual_transactions)
    try:
        with engine.connect() as connection:
            yield connection
    except sa.exc.OperationalError as error:
        message = f"the database {url.shown} cannot be used: {one_line(error.orig)}"
        raise UnavailableError(message) from error
    except sa.exc.DatabaseError as error:
        message = f"the database {url.shown} cannot be used: {one_line(error.orig)}"
        raise SchemaError(message) from error
    except SQLAlchemyError as error:
        message = f"the schema of {url.shown} cannot be read or changed: {one_line(error)}"
        raise SchemaError(message) from error
    finally:
        engine.dispose()


def _manual_transactions(connection: Any, record: object) -> None:
    """Have SQLite's driver leave transactions to us: DDL is transactional, and the write lock comes first."""
    del record
    connection.isolation_level = None


def revision(url: DatabaseUrl) -> str | None:
    """Return the revision that a database is at, None when it has no schema of ours."""
    with _connect(url) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head() -> str:
    """Return the revision that this program needs."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    assert found is not None
    return found


def state(url: DatabaseUrl) -> SchemaState:
    """Compare a database's schema with this program's."""
    current = revision(url)
    if current is None:
        return SchemaState.MISSING
    if current == head():
        return SchemaState.CURRENT
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    return SchemaState.OLDER if current in known else SchemaState.NEWER


def upgrade(url: DatabaseUrl, target: str = "head") -> None:
    """Bring a database to this program's schema; several processes may try at once. Raises SchemaError if newer."""
    if state(url) is SchemaState.NEWER:
        raise SchemaError(newer_message(url))
    with _exclusively(url) as connection:
        command.upgrade(_config(connection), target)


def downgrade(url: DatabaseUrl, target: str) -> None:
    """Take a database back to an older schema, with the loss of what that does not know."""
    with _exclusively(url) as connection:
        command.downgrade(_config(connection), target)


@contextmanager
def _exclusively(url: DatabaseUrl) -> Iterator[sa.Connection]:
    with _connect(url) as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA busy_timeout=30000")
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        yield connection
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("COMMIT")
        else:
            connection.commit()


def newer_message(url: DatabaseUrl) -> str:
    """Say that a database was made by a newer version of this program."""
    return (f"the database {url.shown} has schema {revision(url)}, which is newer than this program's {head()}: upgrade "
            "durabletask-sql, or use another database")
