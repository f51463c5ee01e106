"""A PostgreSQL server crashes during COMMIT and gives the transaction's id out again: nobody believes what is said of it.

The records of the transaction were never durable (they are written out every ten seconds here), so the server that comes
back, or the standby that takes over, knows nothing of its id. Another transaction gets it and is committed.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import psycopg
import pytest

from cluster import PostgresNode, either, nodes, synchronous_pair
from conformance.world import World, in_world
from durabletask_sql.errors import OutcomeUnknownError
from durabletask_sql.storage.postgres import PostgresSession
from durabletask_sql.storage.transactions import TRANSACTION_ID
from tables import count

SETTINGS = {"wal_writer_delay": "10000ms", "autovacuum": "off"}


class Crashing:
    """A server that can crash, and where it can be reached then."""

    def __init__(self, url: str, after: PostgresNode, crash: Callable[[], None]) -> None:
        self.url = url
        self.after = after
        self.crash = crash

    def give_out_again(self, xid: int) -> None:
        """Commit other transactions until one of them has this id."""
        with psycopg.connect(self.after.url, autocommit=True) as connection:
            found = 0
            while found < xid:
                (found,) = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
            assert found == xid, "the id was not given out again: its records were durable"


@pytest.fixture(params=["backend", "postmaster", "failover"])
def database(request):
    if request.param == "failover":
        with synchronous_pair(**SETTINGS) as (primary, standby):
            def fail_over() -> None:
                primary.stop(signal.SIGQUIT)
                standby.promote()

            yield Crashing(either(primary, standby), standby, fail_over)
        return
    with nodes(1, **SETTINGS, wal_level="minimal", max_wal_senders="0") as (node,):
        node.initialize()
        node.start()

        def kill_all() -> None:
            node.kill()
            node.start()

        yield Crashing(node.url, node, node.kill_backend if request.param == "backend" else kill_all)


@pytest.fixture
def at_commit(monkeypatch):
    """Has something done with the id of the transaction that is committed next, before its COMMIT is sent."""
    waiting: list[Callable[[int], None]] = []
    commit = PostgresSession.commit

    def committing(session: PostgresSession) -> None:
        if waiting:
            waiting.pop()(int(session.ask(TRANSACTION_ID)[0][0]))
        commit(session)

    monkeypatch.setattr(PostgresSession, "commit", committing)
    return waiting.append


def test_a_write_whose_id_another_transaction_got_is_not_taken_for_done(database, at_commit):
    def crash(xid: int) -> None:
        database.crash()
        database.give_out_again(xid)

    async def test(w: World):
        await w.created("one")
        at_commit(crash)
        with pytest.raises(OutcomeUnknownError, match="cannot be told"):
            await w.instances.send(w.message("one", b"\x1a\x02\x08\x07"))
        assert count(database.after.url, "control_queue") == 1  # the start alone

    in_world(database.url, test)


def test_a_write_whose_id_was_forgotten_is_done_again(database, at_commit):
    async def test(w: World):
        await w.created("one")
        at_commit(lambda _: database.crash())
        await w.instances.send(w.message("one", b"\x1a\x02\x08\x07"))
        assert count(database.after.url, "control_queue") == 2

    in_world(database.url, test)
