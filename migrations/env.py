"""Alembic's entry: the connection comes from `durabletask_sql.storage.migrations`, or from `-x url=...`."""

from alembic import context
from sqlalchemy import create_engine

from durabletask_sql.storage.tables import metadata
from durabletask_sql.storage.url import parse_url


def run() -> None:
    """Run the migrations on the connection that was handed over, else on a URL given with `-x url=...`."""
    connection = context.config.attributes.get("connection")
    if connection is not None:
        _run_on(connection)
        return
    url = context.get_x_argument(as_dictionary=True).get("url")
    if url is None:
        message = "give the database with -x url=..., or use `durabletask-sql schema upgrade --database URL`"
        raise SystemExit(message)
    with create_engine(parse_url(url).alembic).begin() as opened:
        _run_on(opened)


def _run_on(connection: object) -> None:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


run()
