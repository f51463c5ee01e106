"""Texts of any size: taken out of history, compressed when it pays, put back, and gone with their execution."""

from __future__ import annotations

import base64
import json
import random
import threading
from dataclasses import replace

import pytest
import sqlalchemy as sa

from conformance.world import World, in_world
from durabletask_sql.errors import NotFoundError
from durabletask_sql.model.checkpoints import HistoryAppend
from durabletask_sql.model.creation import CreationPolicy
from durabletask_sql.model.messages import MessageKind, NewMessage
from durabletask_sql.model.queries import InstanceQuery
from durabletask_sql.model.status import Status
from durabletask_sql.ports.committer import HollowHistory
from durabletask_sql.ports.instances import Creation, Termination
from durabletask_sql.protocol import events
from durabletask_sql.protocol.framing import frame_all
from durabletask_sql.protocol.texts import FIRST, INPUT, OUTPUT
from durabletask_sql.storage import queries
from durabletask_sql.storage.packing import INLINE_BYTES, unpack
from durabletask_sql.storage.tables import history, payloads
from durabletask_sql.storage.url import parse_url

MIB = 1024 * 1024
LARGE = "x" * INLINE_BYTES
ANY = CreationPolicy(frozenset())


def json_text(size):
    chance = random.Random(size)
    rows = [{"id": number, "name": f"customer {chance.randrange(10**6)}", "sum": chance.random()} for number in range(2000)]
    return (json.dumps(rows) * (size // 100_000 + 1))[:size]


TEXTS = {
    "json": json_text,
    "incompressible": lambda size: base64.b64encode(random.Random(size).randbytes(size)).decode()[:size],
    "like a URI": lambda size: ("https://account.blob.core.windows.net/container/name?sv=1&sig=%2F#" * (size // 60))[:size],
    "emoji": lambda size: "\U0001f642\u00e9" * (size // 6),
    "U+0000": lambda size: "\0" * size,
    "like a stored payload": lambda size: ("blob:v1:container:name" * (size // 20))[:size],
}
CASES = [*((kind, 1) for kind in TEXTS), ("json", 5), ("incompressible", 5), ("json", 15), ("incompressible", 15)]


async def start(w: World, instance_id: str, text: str | None, policy: CreationPolicy = ANY) -> None:
    row = w.row(instance_id)
    started = events.execution_started(1, events.Start("flow", instance_id, row.execution_id, input=text))
    message = NewMessage(row.key, row.execution_id, MessageKind.START, frame_all((started,)))
    await w.instances.create(Creation(row, text, message, policy))


@pytest.fixture
def unpacked_on(monkeypatch):
    """The threads on which texts are unpacked."""
    threads = []

    def watched(*given):
        threads.append(threading.get_ident())
        return unpack(*given)

    monkeypatch.setattr(queries, "unpack", watched)
    return threads


def test_a_large_text_of_an_instance_is_not_unpacked_on_the_loop(postgres_url, unpacked_on):
    async def test(w: World):
        await start(w, "small", "x")
        await start(w, "large", json_text(MIB))
        for instance_id, text in (("small", "x"), ("large", json_text(MIB))):
            state = await w.instances.get(w.key(instance_id), payloads=True)
            assert state is not None
            assert state.input == text
        assert len(unpacked_on) == 1
        assert threading.get_ident() not in unpacked_on

    in_world(postgres_url, test)


def append(row, *found):
    return HistoryAppend(row.execution_id, row.history_count, len(found), frame_all(found))


async def run_turn(w: World, instance_id: str, *found, **parts):
    """Commit a turn with these events as its history."""
    row = await w.read(instance_id)
    after = replace(row, row_version=row.row_version + 1, status=parts.pop("status", Status.RUNNING),
                    history_count=row.history_count + len(found))
    turn = replace(w.turn(row), row=after, history=append(row, *found), **parts)
    committed = await w.commit(turn)
    return turn, committed


async def first_turn(w: World, instance_id: str, text: str | None, *more, **parts):
    row = await w.read(instance_id)
    started = events.execution_started(1, events.Start("flow", instance_id, row.execution_id, input=text))
    return await run_turn(w, instance_id, events.orchestrator_started(1), started, *more, **parts)


async def whole(w: World, instance_id: str) -> bytes:
    row = await w.read(instance_id)
    return b"".join([page async for page in w.instances.history(row.key, row.execution_id)])


async def read_afresh(w: World, instance_id: str):
    return (await w.load(fresh=(w.key(instance_id),))).fresh[0]


def hollow_of(found):
    return HollowHistory(found.key, found.row.execution_id, found.history, found.refs, 0)


def rows_of(w: World, table, *columns):
    engine = sa.create_engine(parse_url(w.url).alembic)
    with engine.connect() as connection:
        found = connection.execute(sa.select(*columns).order_by(*table.primary_key.columns)).fetchall()
    engine.dispose()
    return [tuple(row) for row in found]


def stored_payloads(w: World):
    return rows_of(w, payloads, payloads.c.payload_id, sa.func.length(payloads.c.content), payloads.c.unpacked_size)


@pytest.mark.parametrize(("kind", "size"), CASES)
def test_a_text_comes_back_as_it_was_on_every_way_out(database_url, kind, size):
    text = TEXTS[kind](size * MIB)

    async def test(w: World):
        await start(w, "one", text)
        turn, _ = await first_turn(w, "one", text, events.task_completed(1, 7, text))
        ending, _ = await run_turn(w, "one", events.execution_completed(2, 9, Status.COMPLETED, text, None),
                                   status=Status.COMPLETED, ended=True, output=text)
        committed = turn.history.events + ending.history.events
        state = await w.instances.get(w.key("one"), payloads=True)
        assert state.input == text
        assert state.output == text
        assert await whole(w, "one") == committed
        found = await read_afresh(w, "one")
        assert sum(map(len, found.history)) < 2000
        assert b"".join(await w.committer.fill(hollow_of(found))) == committed
        stored = stored_payloads(w)
        assert [payload_id for payload_id, _, _ in stored] == [INPUT, OUTPUT, FIRST + 2]  # each text once
        for _, length, unpacked in stored:
            raw = len(text.encode())
            assert (length, unpacked) == (raw, None) if kind == "incompressible" else (length < raw / 2 and unpacked == raw)

    in_world(database_url, test)


def test_small_texts_stay_in_their_row_as_they_are(database_url):
    async def test(w: World):
        text = "x" * (INLINE_BYTES - 1)
        await start(w, "one", text)
        turn, _ = await first_turn(w, "one", text)
        assert rows_of(w, history, history.c.events, history.c.refs) == [(turn.history.events, None)]
        found = await read_afresh(w, "one")
        assert (found.history, found.refs) == ((turn.history.events,), {})

    in_world(database_url, test)


def test_a_turn_that_was_packed_ahead_stores_the_same(database_url):
    async def test(w: World):
        rows = []
        for instance_id in ("ahead", "later"):
            await start(w, instance_id, LARGE)
            row = await w.read(instance_id)
            after = replace(row, row_version=2, history_count=1)
            child = replace(w.child(row, f"{instance_id}'s child"), input=LARGE)
            turn = replace(w.turn(row, output=LARGE, children=(child,)), row=after,
                           history=append(row, events.event_raised(1, "e", LARGE)))
            if instance_id == "ahead":
                turn = await w.committer.pack(turn)
                assert turn.packed is not None
            await w.commit(turn)
            rows.append(stored_payloads(w)[len(rows) * 4:])
            assert await whole(w, instance_id) == turn.history.events
            state = await w.instances.get(w.key(f"{instance_id}'s child"), payloads=True)
            assert state.input == LARGE
        assert sorted(payload_id for payload_id, _, _ in rows[0]) == [INPUT, INPUT, OUTPUT, FIRST]

    in_world(database_url, test)


def test_continue_as_new_takes_the_texts_of_the_old_execution_along(database_url):
    async def test(w: World):
        await start(w, "one", LARGE)
        await first_turn(w, "one", LARGE, events.event_raised(1, "e", LARGE))
        old = await w.read("one")
        new = replace(old, row_version=old.row_version + 1, execution_id="next", history_count=0)
        await w.commit(replace(w.turn(old), row=new, history=None, continued_from=old.execution_id, new_input=LARGE))
        assert [payload_id for payload_id, _, _ in stored_payloads(w)] == [INPUT]
        state = await w.instances.get(old.key, payloads=True)
        assert state.input == LARGE

    in_world(database_url, test)


async def ended(w: World, instance_id: str) -> None:
    await start(w, instance_id, LARGE)
    await first_turn(w, instance_id, LARGE, events.event_raised(1, "e", LARGE))
    await run_turn(w, instance_id, events.execution_completed(2, 9, Status.COMPLETED, LARGE, None),
                   status=Status.COMPLETED, ended=True, output=LARGE)


def test_purge_and_re_creation_take_the_texts_along(database_url):
    async def test(w: World):
        for instance_id in ("purged", "again", "stays"):
            await ended(w, instance_id)
        await w.instances.purge({w.key("purged"): None})
        await start(w, "again", "small")
        assert sorted(payload_id for payload_id, _, _ in stored_payloads(w)) == [INPUT, INPUT, OUTPUT, FIRST + 2]

    in_world(database_url, test)


def test_a_replaced_child_takes_its_texts_along(database_url):
    async def test(w: World):
        await ended(w, "child")
        parent = await w.created("parent")
        await w.commit(w.turn(parent, children=(replace(w.child(parent, "child"), input=LARGE),)))
        assert [payload_id for payload_id, _, _ in stored_payloads(w)] == [INPUT, INPUT]

    in_world(database_url, test)


def test_a_large_reason_of_a_termination_is_an_output_like_others(database_url):
    async def test(w: World):
        await start(w, "one", None)
        key = w.key("one")
        await w.instances.terminate(Termination(key, LARGE, w.message("one"), 5))
        state = await w.instances.get(key, payloads=True)
        assert state.output == LARGE

    in_world(database_url, test)


def test_texts_that_went_with_their_execution_are_not_made_up(database_url):
    async def test(w: World):
        await ended(w, "one")
        row, found = await w.read("one"), await read_afresh(w, "one")
        await w.instances.purge({w.key("one"): None})
        assert await w.committer.fill(hollow_of(found)) is None
        assert [page async for page in w.instances.history(row.key, row.execution_id)] == []

    in_world(database_url, test)


def test_a_history_whose_texts_go_while_it_is_read_ends_with_an_error(database_url):
    async def test(w: World):
        await ended(w, "one")
        engine = sa.create_engine(parse_url(w.url).alembic)
        with engine.begin() as connection:
            connection.execute(payloads.delete())
        engine.dispose()
        with pytest.raises(NotFoundError, match="deleted while its history was read"):
            await whole(w, "one")

    in_world(database_url, test)


def test_a_history_is_read_in_pages_of_about_a_mebibyte(database_url):
    async def test(w: World):
        await start(w, "one", None)
        committed = b""
        for number, size in enumerate([1000, 400_000, 400_000, 400_000, 60_000, 3 * MIB, *[10] * 250]):
            turn, _ = await run_turn(w, "one", events.task_completed(1, number, "x" * size))
            committed += turn.history.events
        row = await w.read("one")
        pages = [page async for page in w.instances.history(row.key, row.execution_id)]
        assert b"".join(pages) == committed
        assert [round(len(page) / 100_000) for page in pages] == [8, 5, 31, 0, 0]

    in_world(database_url, test)


def test_a_page_of_instances_is_one_that_clients_can_read_in_one_message(database_url):
    async def test(w: World):
        sizes = {"a": 1000, "b": 2 * MIB, "c": MIB, "d": 5 * MIB, "e": 1000, "f": 1000}
        for instance_id, size in sizes.items():
            await start(w, instance_id, json_text(size))
        pages, query = [], InstanceQuery(payloads=True)
        while True:
            page = await w.instances.query(query)
            pages.append("".join(state.row.instance_id for state in page.states))
            assert all(len(state.input) == sizes[state.row.instance_id] for state in page.states)
            if page.next is None:
                break
            query = replace(query, after=page.next)
        assert pages == ["ab", "c", "d", "ef"]
        assert len((await w.instances.query(InstanceQuery())).states) == 6

    in_world(database_url, test)
