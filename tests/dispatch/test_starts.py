"""Where a client's start goes: into the owner's next group if that is simple, else into a transaction of its own."""

from __future__ import annotations

import asyncio

import pytest

from dispatch.bench import Worker, finish, on_bench
from durabletask_sql.errors import AlreadyExistsError, OutcomeUnknownError, UnavailableError
from durabletask_sql.model.checkpoints import OrchestrationStart, Outcome, OutcomeKind
from durabletask_sql.ports.committer import Committed


def watched(bench, monkeypatch):
    """Note the ids that are created in transactions of their own."""
    instances, found = bench.service._instances, []
    create = instances.create

    async def noted(creation):
        found.append(creation.row.instance_id)
        return await create(creation)

    monkeypatch.setattr(instances, "create", noted)
    return found


def struck(bench, monkeypatch, strike):
    """Have the first group with a start end as `strike` says; it is given the group and what commits it."""
    committer = bench.runtime.dispatcher._committer
    commit, struck_already = committer.commit, []

    async def once(group):
        if struck_already or not any(isinstance(item, OrchestrationStart) for item in group.items):
            return await commit(group)
        struck_already.append(group)
        return await strike(group, commit)

    monkeypatch.setattr(committer, "commit", once)


async def runs_once(bench):
    """The instance "one" gets its turn, ends, and nothing of it comes again."""
    worker = bench.connect(Worker())
    await bench.answer(await worker.turn(), finish())
    assert await bench.status("one") == "COMPLETED"
    await bench.start("flow", "after")
    assert (await worker.turn()).key.instance_id == "after"


def test_a_start_needs_no_transaction_and_no_load_of_its_own(database_url, monkeypatch):
    async def test(bench):
        apart, loads = watched(bench, monkeypatch), []
        committer = bench.runtime.dispatcher._committer
        load = committer.load

        async def noted(what):
            loads.extend(what.fresh)
            return await load(what)

        monkeypatch.setattr(committer, "load", noted)
        await bench.start("flow", "one")
        await runs_once(bench)
        assert (apart, loads) == ([], [])

    on_bench(database_url, test)


def test_a_start_with_an_event_a_delayed_one_and_a_taken_id_go_apart(database_url, monkeypatch):
    async def test(bench):
        apart = watched(bench, monkeypatch)
        await bench.start("flow", "event", event=("go", None))
        await bench.start("flow", "delayed", start_at=bench.clock.now() + 60_000_000)
        await bench.start("flow", "one")
        with pytest.raises(AlreadyExistsError):
            await bench.start("flow", "one")
        assert apart == ["event", "delayed", "one"]

    on_bench(database_url, test)


@pytest.mark.parametrize("took_effect", [True, False])
def test_a_start_whose_commit_has_an_unknown_outcome_happens_once(database_url, monkeypatch, took_effect):
    async def test(bench):
        async def strike(group, commit):
            if took_effect:
                await commit(group)
            message = "made by the test"
            raise OutcomeUnknownError(message)

        struck(bench, monkeypatch, strike)
        await bench.start("flow", "one")
        await runs_once(bench)

    on_bench(database_url, test)


@pytest.mark.parametrize("kind", [OutcomeKind.BUSY, OutcomeKind.REFUSED, None])
def test_a_start_that_does_not_get_through_in_a_group_goes_apart_at_once(database_url, monkeypatch, kind):
    async def test(bench):
        async def strike(group, commit):
            if kind is None:
                message = "made by the test"
                raise UnavailableError(message)
            return Committed(tuple(Outcome(kind, "made by the test") for _ in group.items))

        apart = watched(bench, monkeypatch)
        struck(bench, monkeypatch, strike)
        await bench.start("flow", "one")
        assert apart == ["one"]
        await runs_once(bench)

    on_bench(database_url, test)


def test_an_id_that_is_in_the_way_of_one_start_is_not_tried_in_a_group_by_the_next(database_url, monkeypatch):
    """Another session may hold it: each try would keep a whole group waiting."""
    async def test(bench):
        instances, tried, opened = bench.service._instances, [], asyncio.Event()
        create, start = instances.create, bench.runtime.dispatcher.start_instance

        async def late(creation):
            await opened.wait()
            return await create(creation)

        async def noted(creation):
            tried.append(creation.row.instance_id)
            return await start(creation)

        await bench.start("flow", "one")
        monkeypatch.setattr(instances, "create", late)
        monkeypatch.setattr(bench.runtime.dispatcher, "start_instance", noted)
        starts = [asyncio.create_task(bench.start("flow", "one"))]
        await bench.until(lambda: "one" in {key.instance_id for key in bench.service._contested})
        starts.append(asyncio.create_task(bench.start("flow", "one")))
        await bench.start("flow", "other")
        opened.set()
        ended = await asyncio.gather(*starts, return_exceptions=True)
        assert [type(one) for one in ended] == [AlreadyExistsError] * 2
        assert tried == ["one", "other"]

    on_bench(database_url, test)
