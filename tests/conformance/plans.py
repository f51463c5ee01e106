"""What the databases say they will do for a statement."""

from __future__ import annotations

from conformance.world import World
from durabletask_sql.storage.dialect import Statement
from durabletask_sql.storage.session import Reply
from durabletask_sql.storage.sqlite import _DIALECT, SqliteSession


async def plan_of(w: World, statement: object, rows: tuple = (), **scalars: object) -> str:
    """The plan of a statement, built once (with the rows of its source) or for the occasion, as text."""
    return await w.store._database.readers.run(lambda session: _explained(session, statement, rows, {"hub": 1, **scalars}))


def _explained(session, statement, rows, scalars):
    if isinstance(session, SqliteSession):
        if isinstance(statement, Statement):
            compiled = session._compiler.compile(statement, len(rows))
            text, values = compiled.text, session._compiler.parameters(compiled, len(statement.columns), rows, scalars)
        else:
            built = statement.compile(dialect=_DIALECT)
            text, values = str(built), [{**built.params, **scalars}[name] for name in built.positiontup]
        return "\n".join(row[3] for row in session._connection.execute(f"EXPLAIN QUERY PLAN {text}", values))
    if isinstance(statement, Statement):
        prepared = session._compiler.compile(statement, len(rows))
        values = session._compiler.parameters(prepared, rows, scalars)
    else:
        prepared = session._compiler.prepare(statement)
        named = {**prepared.constants, **scalars}
        values = [encode(named[name]) for name, encode, _ in prepared.parameters]
    reply = Reply()
    session._queue("a plan", b"EXPLAIN " + prepared.text, values, reply, once=True)
    session.flush()
    return "\n".join(row[0] for row in reply.rows)
