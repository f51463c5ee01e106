"""The statements of the commit path are compiled before work comes."""

from __future__ import annotations

import pytest

from conformance.world import World, in_world
from durabletask_sql.storage import database
from durabletask_sql.storage.dialect import PostgresCompiler, SqliteCompiler


def noted(original, seen):
    def watched(*given):
        seen.append(given)
        return original(*given)

    return watched


@pytest.fixture
def compiled(monkeypatch):
    """What this process has compiled is forgotten; the list of what it compiles from then on."""
    seen = []
    for name, fresh, step in (("_POSTGRES_COMPILER", PostgresCompiler(), "prepare"),
                              ("_SQLITE_COMPILER", SqliteCompiler(), "_pattern")):
        monkeypatch.setattr(fresh, step, noted(getattr(fresh, step), seen))
        monkeypatch.setattr(database, name, fresh)
    return seen


def test_a_commit_and_a_load_find_their_statements_compiled(database_url, compiled):
    async def test(w: World):
        rows = [await w.created(name) for name in ("one", "two", "three")]
        await w.store.compile_ahead()
        assert compiled
        compiled.clear()
        await w.load(claims=tuple(row.key for row in rows), fresh=tuple(row.key for row in rows))
        await w.commit(w.turn(rows[0], activities=(w.activity(rows[0]),)))
        await w.commit(*(w.turn(row, messages=(w.message("one"), w.message("two"))) for row in rows[1:]))
        assert compiled == []

    in_world(database_url, test)
