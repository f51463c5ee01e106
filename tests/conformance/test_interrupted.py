"""A write that breaks off after any of its statements leaves what was before, and never a mixture (I1)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy import select

from conformance.test_clients import terminate
from conformance.test_rewinds import body, rewinds
from conformance.test_rewinds import end as end_run
from conformance.test_rewinds import run as first_run
from conformance.world import NOW, World, in_world
from durabletask_sql.errors import OutcomeUnknownError, UnavailableError
from durabletask_sql.model.checkpoints import ActivityCompletion, OutcomeKind, Quarantine
from durabletask_sql.model.creation import CreationPolicy
from durabletask_sql.model.messages import ActivityRow, MessageKind, NewMessage, NewTimer
from durabletask_sql.model.status import Status
from durabletask_sql.ports.instances import Creation
from durabletask_sql.ports.wakeups import News
from durabletask_sql.storage.faults import ConflictError, ConnectionLostError, LockTimeoutError, RefusedError
from durabletask_sql.storage.postgres import PostgresSession
from durabletask_sql.storage.sqlite import SqliteSession
from durabletask_sql.storage.tables import metadata
from tables import rows

MOST_STATEMENTS = 60
Write = Callable[[], Awaitable[object]]


@contextmanager
def breaking(w: World, at: int, error: Exception) -> Iterator[None]:
    """Have the connection fail in front of its n-th statement from now on, its commit counted as one."""
    kind = SqliteSession if w.store.is_sqlite else PostgresSession
    left = [at]

    def breaks(method):
        def run(session, *args, **scalars):
            left[0] -= 1
            if left[0] == 0:
                session.rollback()
                raise error
            return method(session, *args, **scalars)

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "send", breaks(kind.send))
        patch.setattr(kind, "commit", breaks(kind.commit))
        yield


async def stored(w: World) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    return await w.store._database.readers.run(lambda session: {
        name: sorted(session.execute(select(table)).rows, key=repr) for name, table in metadata.tables.items()})


async def family(w: World) -> None:
    """A parent that has run, with a child that has not."""
    await w.create("parent")
    await first_run(w, "parent", status=Status.RUNNING, children=[(5, body("child", "in"))])


async def busy(w: World) -> None:
    """The family, and an instance with a task, a timer, a message and a pending turn."""
    await family(w)
    row = await w.created("one")
    timer = NewTimer(row.key, row.execution_id, MessageKind.EVENT, 9 * NOW, b"\x1a\x00")
    await w.commit(w.turn(row, timers=(timer,), activities=(w.activity(row), w.activity(row, 2))))
    await w.instances.send(w.message("one"))
    await w.created("ended-child")
    await first_run(w, "ended-child", status=Status.COMPLETED, output="old")
    await w.queue("one")


async def commit_turn(w: World) -> Write:
    row = await w.read("one")
    held = [one.seq for one in await w.queue("one")]
    timer = NewTimer(row.key, row.execution_id, MessageKind.EVENT, 9 * NOW, b"\x1a\x00")
    turn = w.turn(row, consumed=tuple(held), messages=(w.message("parent"),), timers=(timer,),
                  activities=(w.activity(row, 3),), children=(w.child(row, "new-child"), w.child(row, "ended-child"),
                                                              w.child(row, "child")))
    return lambda: w.commit(turn)


async def commit_end(w: World) -> Write:
    row = await w.read("one")
    after = replace(row, row_version=row.row_version + 1, status=Status.TERMINATED, history_count=row.history_count + 1)
    turn = w.turn(row, ended=True, output="out", drop_unclaimed=True, messages=(w.message("parent"),))
    return lambda: w.commit(replace(turn, row=after))


async def commit_again(w: World) -> Write:
    row = await w.read("one")
    after = replace(row, row_version=row.row_version + 1, execution_id="next", history_count=0)
    start = NewMessage(row.key, "next", MessageKind.START, b"\x1a\x00")
    turn = w.turn(row, continued_from=row.execution_id, new_input="next", messages=(start,), history=None)
    return lambda: w.commit(replace(turn, row=after))


async def commit_result(w: World) -> Write:
    key, seq, token = w.key("one"), *rows(w.url, "SELECT seq, token FROM activity_queue ORDER BY seq")[0]
    return lambda: w.commit(ActivityCompletion(key, seq, token, w.message("one")))


async def set_aside(w: World) -> Write:
    held = tuple(one.seq for one in await w.queue("one"))
    return lambda: w.commit(Quarantine(w.key("one"), "bad", held))


async def re_create(w: World) -> Write:
    row = w.row("child")
    start = NewMessage(row.key, row.execution_id, MessageKind.START, b"\x1a\x00")
    return lambda: w.instances.create(Creation(row, "in", start, CreationPolicy(frozenset()), event=w.message("child")))


async def end_pending(w: World) -> Write:
    return lambda: w.instances.terminate(terminate(w, "child"))


async def end_now(w: World) -> Write:
    return lambda: w.instances.terminate_now([w.key("one"), w.key("child")], "why", 5 * NOW)


async def purge(w: World) -> Write:
    return lambda: w.instances.purge({w.key("ended-child"): None})


async def failed(w: World) -> None:
    await busy(w)
    await first_run(w, "child", status=Status.FAILED)
    await end_run(w, "parent", Status.FAILED)


async def rewind(w: World) -> Write:
    return lambda: rewinds(w).rewind(w.key("parent"), "why")


async def empty(w: World) -> Write:
    return lambda: w.store.empty_hub(w.hub)


@pytest.mark.parametrize(("before", "write"), [
    (busy, commit_turn), (busy, commit_end), (busy, commit_again), (busy, commit_result), (busy, set_aside),
    (busy, re_create), (busy, end_pending), (busy, end_now), (busy, purge), (failed, rewind), (busy, empty)],
    ids=lambda one: one.__name__)
def test_a_write_that_breaks_off_after_any_statement_changes_nothing(database_url, before, write):
    async def test(w: World):
        await before(w)
        done = await write(w)
        then = await stored(w)
        turn = write.__name__.startswith(("commit", "set_aside"))
        error = ConnectionLostError("broken by the test", sent=True) if turn else RefusedError("broken by the test")
        for at in range(1, MOST_STATEMENTS):
            try:
                with breaking(w, at, error):
                    await done()
            except (OutcomeUnknownError, UnavailableError, RefusedError, ConnectionLostError):
                assert await stored(w) == then, f"after statement {at}"
            else:
                break
        assert at > 3
        assert await stored(w) != then

    in_world(database_url, test)


def test_a_deadlock_at_any_statement_is_repeated_and_the_write_counts_once(database_url):
    async def test(w: World):
        await w.created("one")
        await w.created("ear")
        for at in range(1, MOST_STATEMENTS // 4):
            turn = w.turn(await w.read("one"), messages=(w.message("ear"),))
            with breaking(w, at, ConflictError("made by the test")):
                committed = await w.commit(turn)
            assert [outcome.kind.value for outcome in committed.outcomes] == ["committed"]
            with breaking(w, at, ConflictError("made by the test")):
                await w.instances.send(w.message("ear"))
            assert len(rows(w.url, "SELECT seq FROM control_queue WHERE instance_id = 'ear'")) == 1 + 2 * at

    in_world(database_url, test)


async def release(w: World) -> object:
    return await w.committer.release_claims(w.host.host_id, [77])


async def give_back(w: World) -> object:
    return await w.committer.give_back(w.host.host_id, [ActivityRow(1, w.key("one"), "e", 1, "act", None, b"", 77)])


async def poll(w: World) -> object:
    return await w.committer.poll(w.host.host_id, NOW)


async def look_for_a_task(w: World) -> object:
    return await w.committer.activity(0, 1, 77)


async def tell(w: World) -> object:
    return await w.store.wakeups(w.hub, w.host.host_id).tell(News(anything=True))


async def open_hub(w: World) -> object:
    return await w.store.open_hub("another", None)


REPEATED = [release, give_back, poll, look_for_a_task, tell, open_hub]


@pytest.mark.parametrize("ask", REPEATED, ids=lambda one: one.__name__)
def test_what_loops_ask_for_is_repeated_when_another_session_is_in_the_way(database_url, ask):
    async def test(w: World):
        for error in (LockTimeoutError("a table", "made by the test"), ConflictError("made by the test")):
            with breaking(w, 1, error):
                await ask(w)

    in_world(database_url, test)


@pytest.mark.parametrize("ask", REPEATED, ids=lambda one: one.__name__)
def test_what_loops_ask_for_fails_with_an_error_that_they_catch(database_url, ask):
    async def test(w: World):
        with breaking(w, 1, RefusedError("made by the test")):
            if ask is tell and w.store.is_sqlite:
                await ask(w)  # says nothing to the database
            else:
                with pytest.raises(UnavailableError, match="made by the test"):
                    await ask(w)
        await ask(w)

    in_world(database_url, test)


def test_claims_that_another_session_holds_locked_are_released_later(postgres_url):
    async def test(w: World):
        await busy(w)
        with psycopg.connect(w.url) as other:
            other.execute("SELECT 1 FROM activity_queue FOR UPDATE")
            with pytest.raises(UnavailableError, match="locked by another session"):
                await release(w)
        await release(w)
        assert rows(w.url, "SELECT DISTINCT host, token FROM activity_queue") == [(0, 0)]

    in_world(postgres_url, test)


def test_a_table_that_is_locked_harms_no_group_that_looks_for_who_is_in_its_way(postgres_url, monkeypatch):
    """As a migration locks it: what asks which rows are free has to wait as well."""
    async def test(w: World):
        await busy(w)
        result = await commit_result(w)
        with psycopg.connect(w.url) as other:
            other.execute("LOCK TABLE activity_queue IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(UnavailableError, match="a row of activity_queue is locked"):
                await result()
        assert [outcome.kind for outcome in (await result()).outcomes] == [OutcomeKind.COMMITTED]

    in_world(postgres_url, test)
