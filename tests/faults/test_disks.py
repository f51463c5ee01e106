"""A disk that is full, and a database that takes no writes for a while: everything waits, and nothing is set aside."""

from __future__ import annotations

import asyncio

import pytest

from checker import check_hub
from conformance.world import World, in_world
from dispatch.bench import Bench, Worker, finish, on_bench, schedule
from durabletask_sql.errors import UnavailableError
from tables import count


async def limit(bench: Bench, pages: int) -> None:
    """Let the file grow to so many pages at most (0: no further)."""
    lane = bench.runtime.dispatcher._committer._database.committer
    await lane.run(lambda session: session._connection.execute(f"PRAGMA max_page_count={pages}"))


async def fill(bench: Bench) -> None:
    for number in range(1_000):
        await bench.start("flow", f"more-{number}", input="y" * 50_000)


def test_a_full_disk_refuses_clients_and_keeps_what_is_under_way(tmp_path):
    """Clients are told at once; results and turns wait, and are committed when there is room again."""
    url = f"sqlite:///{tmp_path / 'hub.db'}"

    async def test(bench: Bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "a")
        await bench.answer(await worker.turn(), *schedule("step", text="x" * 60_000))
        task = await worker.activity()
        await limit(bench, 1)  # as many as there are
        with pytest.raises(UnavailableError, match="full"):
            await fill(bench)
        result = asyncio.create_task(bench.result(task, "z" * 500_000))
        done, _ = await asyncio.wait((result,), timeout=0.3)
        assert not done
        await limit(bench, 1_000_000)
        await result
        seen: set[str] = set()
        while "a" not in seen or "completed" not in seen:
            item = await worker.turn()
            seen.add(item.key.instance_id)
            await bench.answer(item, finish())
            if await bench.status("a") == "COMPLETED":
                seen.add("completed")
        assert count(url, "quarantine") == 0

    on_bench(url, test)
    assert check_hub(url) == []


def test_a_server_that_is_read_only_for_a_while_is_unavailable_and_refuses_nobody(postgres_url):
    """As a standby is, or a server whose operator keeps its disk from filling up: no item is at fault."""
    async def test(w: World):
        row = await w.created("one")

        async def set_read_only(how: str) -> None:
            def work(session):
                session._queue("settings", f"SET default_transaction_read_only={how}".encode(), (), None, once=True)
                session.flush()
            await w.store._database.committer.run(work)

        await w.load()
        await set_read_only("on")
        with pytest.raises(UnavailableError, match="read-only"):
            await w.commit(w.turn(row))
        await set_read_only("off")
        assert (await w.commit(w.turn(row))).outcomes[0].kind.value == "committed"

    in_world(postgres_url, test)


def test_a_file_that_is_read_only_for_a_while_refuses_nobody(tmp_path):
    async def test(w: World):
        row = await w.created("one")

        async def set_read_only(how: int) -> None:
            await w.store._database.committer.run(lambda session: session._connection.execute(f"PRAGMA query_only={how}"))

        await set_read_only(1)
        with pytest.raises(UnavailableError, match="readonly"):
            await w.commit(w.turn(row))
        await set_read_only(0)
        assert (await w.commit(w.turn(row))).outcomes[0].kind.value == "committed"

    in_world(f"sqlite:///{tmp_path / 'hub.db'}", test)
