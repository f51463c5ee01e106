"""Termination: alone in its turn, merged, with or without a worker's answer, and with the children (sections 2 to 4)."""

from __future__ import annotations

import asyncio

import pytest

from dispatch.bench import Worker, on_bench, schedule
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import iter_events
from semantics.acts import COMPLETED, FAILED, TERMINATED, again, child, claimed, end, kinds, names, new, send, soon, timer
from tables import rows


async def begin(bench, *actions):
    """A started instance, and the worker that began it."""
    worker = bench.connect(Worker())
    await bench.start("flow", "one")
    await bench.answer(await worker.turn(), *actions)
    return worker


async def recorded(bench, instance_id):
    return [event for page in [page async for page in bench.service.history(instance_id, None)] for event in iter_events(page)]


def test_it_comes_alone_after_what_was_there_before_and_drops_what_came_later(database_url):
    async def test(bench):
        worker = await begin(bench)
        bench.board.disconnect(worker)
        await bench.service.raise_event("one", "before", None)
        await bench.service.terminate("one", "why", recursive=False)
        await bench.service.raise_event("one", "after", None)
        await claimed(bench, "one", 3)
        worker = bench.connect(Worker())
        item = await worker.turn()
        assert names(new(item)) == ["before"]
        await bench.answer(item)
        item = await worker.turn()
        assert kinds(new(item)) == ["orchestratorStarted", "executionTerminated"]
        await bench.answer(item, end(TERMINATED, "why"))
        state = await bench.service.get("one", payloads=True)
        assert (state.row.status, state.output, state.row.failure) == (Status.TERMINATED, "why", None)
        assert worker.turns.empty()

    on_bench(database_url, test)


def test_all_that_are_queued_are_one_with_the_first_reason_and_any_recursion(database_url):
    async def test(bench):
        worker = await begin(bench, child("below"))
        below = await worker.turn()
        await bench.answer(below)
        bench.board.disconnect(worker)
        await bench.service.terminate("one", "first", recursive=False)
        await bench.service.terminate("one", "second", recursive=True)
        await claimed(bench, "one", 2)
        worker = bench.connect(Worker())
        item = await worker.turn()
        assert kinds(new(item)) == ["orchestratorStarted", "executionTerminated"]
        assert (new(item)[1].executionTerminated.input.value, new(item)[1].executionTerminated.recurse) == ("first", True)
        await bench.answer(item, end(TERMINATED, "first"))
        item = await worker.turn()
        assert (item.key.instance_id, new(item)[1].executionTerminated.input.value) == ("below", "first")

    on_bench(database_url, test)


def test_an_instance_whose_worker_says_nothing_is_ended_by_the_server(database_url):
    async def test(bench):
        worker = await begin(bench)
        await bench.service.suspend("one", None)
        await bench.answer(await worker.turn())
        await bench.service.terminate("one", "why", recursive=False)
        await bench.answer(await worker.turn())
        state = await bench.service.get("one", payloads=True)
        assert (state.row.status, state.output) == (Status.TERMINATED, "why")
        assert kinds(await recorded(bench, "one"))[-2:] == ["executionTerminated", "executionCompleted"]

    on_bench(database_url, test)


def test_a_pending_instance_ends_at_once_even_while_its_first_turn_is_out(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        item = await worker.turn()
        await bench.service.terminate("one", "why", recursive=False)
        assert await bench.status("one") == "TERMINATED"
        await bench.answer(item, *schedule("act"), end(result="late"))
        state = await bench.service.get("one", payloads=True)
        assert (state.row.status, state.output, state.row.history_count) == (Status.TERMINATED, "why", 0)
        assert worker.activities.empty()

    on_bench(database_url, test)


def test_a_scheduled_instance_ends_and_never_runs_even_past_its_time(database_url):
    async def test(bench):
        at = soon(0.3).ToMicroseconds()
        await bench.start("flow", "one", start_at=at)
        await bench.service.terminate("one", "why", recursive=False)
        assert await bench.status("one") == "TERMINATED"
        worker = bench.connect(Worker())  # not before: on a slow machine its time may have come by now
        await bench.start("flow", "later", start_at=at + 100_000)
        assert (await worker.turn()).key.instance_id == "later"
        assert worker.turns.empty()

    on_bench(database_url, test)


def test_a_pending_child_that_is_terminated_fails_for_its_parent(database_url):
    async def test(bench):
        worker = bench.connect(Worker(turn_slots=1))
        await bench.start("flow", "one")
        item = await worker.turn()
        bench.board.stop_offering()
        await bench.answer(item, child("below", number=3))
        await bench.service.terminate("below", "why", recursive=False)
        assert await bench.status("below") == "TERMINATED"
        bench.board._offering = True
        bench.board.pump()
        told = new(await worker.turn())
        assert kinds(told) == ["orchestratorStarted", "subOrchestrationInstanceFailed"]
        assert "why" in told[1].subOrchestrationInstanceFailed.failureDetails.errorMessage

    on_bench(database_url, test)


def test_it_reaches_the_children_that_the_last_turn_starts_and_those_below_them(database_url):
    async def test(bench):
        worker = await begin(bench)
        await bench.service.terminate("one", "why", recursive=True)
        await bench.answer(await worker.turn(), child("below"), end(TERMINATED, "why"))
        state = await bench.service.wait_for_completion("below", payloads=True)
        assert (state.row.status, state.output) == (Status.TERMINATED, "why")
        assert worker.turns.empty()

    on_bench(database_url, test)


@pytest.mark.parametrize(("first", "second", "expected"), [
    (COMPLETED, TERMINATED, Status.COMPLETED), (TERMINATED, COMPLETED, Status.TERMINATED), (FAILED, COMPLETED, Status.FAILED)])
def test_of_two_ends_the_lower_id_counts_and_is_told_once(database_url, first, second, expected):
    async def test(bench):
        worker = await begin(bench, child("below", number=3))
        item = await worker.turn()
        await bench.answer(item, end(second, "second", number=9), end(first, "first", number=8))
        assert (await bench.service.get("below", payloads=True)).row.status is expected
        told = await worker.turn()
        assert len(new(told)) == 2
        await bench.answer(told)
        await bench.service.raise_event("one", "last", None)
        assert kinds(new(await worker.turn())) == ["orchestratorStarted", "eventRaised"]

    on_bench(database_url, test)


def test_what_comes_with_an_end_takes_effect(database_url):
    """Actions beside a completion are carried out, whatever its place: events, children and activities nobody waits for."""
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "other")
        await bench.answer(await worker.turn())
        await bench.start("flow", "one")
        await bench.answer(await worker.turn(), end(result="done", number=0), send(1, "other", "parting"),
                           *schedule("act", first=2), child("below", number=3), timer(4, soon()))
        assert await bench.status("one") == "COMPLETED"
        found = sorted([await worker.turn(), await worker.turn()], key=lambda item: item.key.instance_id)
        assert [item.key.instance_id for item in found] == ["below", "other"]
        assert names(new(found[1])) == ["parting"]
        activity = await worker.activity()
        await bench.result(activity)
        await bench.answer(found[0], end(result="unheard"))
        assert await bench.status("one") == "COMPLETED"
        assert worker.turns.empty()

    on_bench(database_url, test)


def test_a_termination_and_a_completion_that_race_leave_one_end(database_url):
    async def test(bench):
        worker = bench.connect(Worker(turn_slots=50))
        ids = [f"i{number}" for number in range(20)]
        for one in ids:
            await bench.start("flow", one)
        for _ in ids:
            await bench.answer(await worker.turn())
        for one in ids:
            await bench.service.raise_event(one, "go", None)
        items = [await worker.turn() for _ in ids]

        async def settle(item):
            await bench.answer(item, end(result="done"))

        await asyncio.gather(*(settle(item) for item in items),
                             *(bench.service.terminate(one, "why", recursive=False) for one in ids))
        for one in ids:
            state = await bench.service.wait_for_completion(one, payloads=True)
            assert (state.row.status, state.output) == (Status.COMPLETED, "done")

    on_bench(database_url, test)


@pytest.mark.parametrize("again", ["by a client", "by a parent"])
def test_a_recursion_that_comes_while_the_termination_is_out_is_not_lost(database_url, again):
    """The first termination, which spares the children, is with the worker: the second one takes them along."""
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "above")
        await bench.answer(await worker.turn(), child("one"))
        await bench.answer(await worker.turn(), child("below", number=1), child("ended", number=2))
        found = {item.key.instance_id: item for item in (await worker.turn(), await worker.turn())}
        await bench.answer(found["below"])
        await bench.answer(found["ended"], end(result="kept"))
        await bench.answer(await worker.turn())
        await bench.service.terminate("one", "first", recursive=False)
        out = await worker.turn()
        assert new(out)[1].executionTerminated.recurse is False
        if again == "by a client":
            await bench.service.terminate("one", "second", recursive=True)
        else:
            await bench.service.terminate("above", "from above", recursive=True)
            await bench.answer(await worker.turn(), end(TERMINATED))
        await bench.answer(out, child("last", number=3), end(TERMINATED, "first"))
        told = {(item.key.instance_id, *kinds(new(item))) for item in (
            [await worker.turn()] if again == "by a parent" else [await worker.turn(), await worker.turn()])}
        assert ("below", "orchestratorStarted", "executionTerminated") in told
        state = await bench.service.wait_for_completion("last", payloads=True)
        assert (state.row.status, state.output) == (Status.TERMINATED, "first")
        assert [await bench.status(one) for one in ("one", "ended")] == ["TERMINATED", "COMPLETED"]

    on_bench(database_url, test)


@pytest.mark.parametrize("target", ["begun", "pending", "nobody", "one"])
def test_an_orchestration_terminates_another_by_an_action(database_url, target):
    async def test(bench):
        worker = await begin(bench)
        await bench.start("flow", "begun")
        await bench.answer(await worker.turn())
        await bench.start("nobody's", "pending", start_at=soon(60).ToMicroseconds())
        await bench.service.raise_event("one", "go", None)
        await bench.answer(await worker.turn(), pb.OrchestratorAction(id=5, terminateOrchestration=(
            pb.TerminateOrchestrationAction(instanceId=target, reason={"value": "why"}, recurse=False))))
        if target == "nobody":
            assert await bench.service.get("nobody", payloads=False) is None
            return
        if target != "pending":
            item = await worker.turn()
            assert (item.key.instance_id, kinds(new(item))) == (target, ["orchestratorStarted", "executionTerminated"])
            await bench.answer(item, end(TERMINATED, "why"))
        state = await bench.service.wait_for_completion(target, payloads=True)
        assert (state.row.status, state.output) == (Status.TERMINATED, "why")
        assert kinds(await recorded(bench, "one"))[-1] != "executionTerminated" or target == "one"
        assert worker.turns.empty()

    on_bench(database_url, test)


@pytest.mark.parametrize(("status", "expected"), [(COMPLETED, Status.COMPLETED), (FAILED, Status.FAILED)])
def test_an_end_overrides_a_suspension_in_its_turn(database_url, status, expected):
    """The orchestrator was through before it could be suspended."""
    async def test(bench):
        worker = await begin(bench)
        await bench.service.suspend("one", "too late")
        await bench.answer(await worker.turn(), end(status))
        assert await bench.status("one") == expected.name

    on_bench(database_url, test)


# Terminations that a parent's end sends: for its own children alone


async def hears_an_event_alone(bench, worker, instance_id):
    """Whether the next turn of an instance, which it is given for an event, brings that event and nothing else."""
    await bench.service.raise_event(instance_id, "go", None)
    item = await worker.turn()
    assert (item.key.instance_id, kinds(new(item))) == (instance_id, ["orchestratorStarted", "eventRaised"])
    return item


async def end_with(bench, worker, *actions):
    """End "one" by a recursive termination, whose turn also does this."""
    await bench.service.terminate("one", "why", recursive=True)
    await bench.answer(await worker.turn(), *actions, end(TERMINATED, "why"))
    assert await bench.status("one") == "TERMINATED"


@pytest.mark.parametrize("other", ["a client's", "another parent's"])
def test_what_has_the_id_that_a_last_turn_asks_for_is_left_alone(database_url, other):
    async def test(bench):
        worker = await begin(bench)
        if other == "a client's":
            await bench.start("flow", "taken")
        else:
            await bench.start("flow", "above")
            await bench.answer(await worker.turn(), child("taken"))
        await bench.answer(await worker.turn())
        await end_with(bench, worker, child("taken", number=3))
        await hears_an_event_alone(bench, worker, "taken")

    on_bench(database_url, test)


def test_what_has_the_id_that_a_last_turn_asks_for_stays_pending(database_url):
    async def test(bench):
        worker = await begin(bench)
        await bench.start("flow", "taken", start_at=soon(3600).ToMicroseconds())
        await end_with(bench, worker, child("taken", number=3))
        await bench.until(lambda: not rows(database_url, "SELECT seq FROM control_queue WHERE instance_id = 'taken'"))
        assert await bench.status("taken") == "PENDING"

    on_bench(database_url, test)


def test_what_a_client_has_started_under_the_id_of_a_child_that_ended_is_left_alone(database_url):
    """The parent has not heard of its child's end yet: in its history the child is open."""
    async def test(bench):
        worker = await begin(bench, child("below"))
        below = await worker.turn()
        bench.board.stop_offering()
        await bench.service.terminate("one", "why", recursive=True)
        await bench.answer(below, end(result="done"))
        await bench.start("flow", "below")
        bench.board._offering = True
        bench.board.pump()
        found = {item.key.instance_id: item for item in (await worker.turn(), await worker.turn())}
        assert kinds(new(found["one"])) == ["orchestratorStarted", "executionTerminated"]
        await bench.answer(found["below"])
        await bench.answer(found["one"], end(TERMINATED, "why"))
        await hears_an_event_alone(bench, worker, "below")

    on_bench(database_url, test)


def test_a_recursion_that_is_meant_for_another_takes_no_children_along(database_url):
    """It comes while a termination without one is out."""
    async def test(bench):
        worker = await begin(bench)
        await bench.start("flow", "taken")
        await bench.answer(await worker.turn(), child("kept"))
        await bench.answer(await worker.turn())
        await bench.service.terminate("taken", "by itself", recursive=False)
        out = await worker.turn()
        await end_with(bench, worker, child("taken", number=3))
        await bench.answer(out, end(TERMINATED))
        assert await bench.status("taken") == "TERMINATED"
        await hears_an_event_alone(bench, worker, "kept")

    on_bench(database_url, test)


def test_a_child_that_continued_as_new_is_its_parents_still(database_url):
    async def test(bench):
        worker = await begin(bench, child("below"))
        await bench.answer(await worker.turn(), again())
        await bench.answer(await worker.turn())
        await end_with(bench, worker)
        item = await worker.turn()
        assert (item.key.instance_id, kinds(new(item))) == ("below", ["orchestratorStarted", "executionTerminated"])

    on_bench(database_url, test)


def test_a_termination_outlives_the_execution_of_the_child_that_continues_as_new(database_url):
    async def test(bench):
        worker = await begin(bench, child("below"))
        await bench.answer(await worker.turn())
        await bench.service.raise_event("below", "go", None)
        out = await worker.turn()
        await end_with(bench, worker)
        await bench.answer(out, again())
        state = await bench.service.wait_for_completion("below", payloads=True)
        assert (state.row.status, state.output) == (Status.TERMINATED, "why")
        assert worker.turns.empty()

    on_bench(database_url, test)


def test_a_child_that_lived_on_is_its_rewound_parents(database_url):
    async def test(bench):
        worker = await begin(bench, child("below"))
        await bench.answer(await worker.turn())
        await bench.service.raise_event("one", "go", None)
        await bench.answer(await worker.turn(), end(FAILED))
        await bench.service.rewind("one", None)
        await bench.answer(await worker.turn())
        await end_with(bench, worker)
        item = await worker.turn()
        assert (item.key.instance_id, kinds(new(item))) == ("below", ["orchestratorStarted", "executionTerminated"])

    on_bench(database_url, test)
