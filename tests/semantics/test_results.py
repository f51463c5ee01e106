"""Results and turns: late, doubled and stale ones change nothing, and every turn's clock goes forward (sections 4 to 6)."""

from __future__ import annotations

import pytest

from dispatch.bench import Worker, on_bench, schedule
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import iter_events
from semantics.acts import FAILED, again, child, claimed, end, kinds, names, new, past, send, soon, timer
from tables import rows

DETAILS = pb.TaskFailureDetails(
    errorType="E", errorMessage="", isNonRetriable=True, innerFailure=pb.TaskFailureDetails(errorType="I"))


async def begin(bench, *actions):
    worker = bench.connect(Worker())
    await bench.start("flow", "one")
    await bench.answer(await worker.turn(), *actions)
    return worker


async def history(bench, instance_id):
    return [event for page in [page async for page in bench.service.history(instance_id, None)] for event in iter_events(page)]


def test_a_result_counts_once_and_is_an_input_without_an_id(database_url):
    async def test(bench):
        worker = await begin(bench, *schedule("act", first=4))
        item = await worker.activity()
        for text in ("first", "second"):
            await bench.result(item, text)
        turn = await worker.turn()
        assert kinds(new(turn)) == ["orchestratorStarted", "taskCompleted"]
        found = new(turn)[1]
        assert (found.eventId, found.taskCompleted.taskScheduledId, found.taskCompleted.result.value) == (-1, 4, "first")
        await bench.answer(turn)
        await bench.service.raise_event("one", "last", None)
        assert kinds(new(await worker.turn())) == ["orchestratorStarted", "eventRaised"]

    on_bench(database_url, test)


def test_a_failure_is_one_by_its_presence_and_passes_through_unchanged(database_url):
    async def test(bench):
        worker = await begin(bench, *schedule("act"))
        item = await worker.activity()
        await bench.board.complete_activity(pb.ActivityResponse(
            instanceId="one", taskId=0, completionToken=item.token, failureDetails=DETAILS, result={"value": "ignored"}))
        assert new(await worker.turn())[1].taskFailed.failureDetails == DETAILS

    on_bench(database_url, test)


@pytest.mark.parametrize("value", [None, ""])
def test_an_absent_result_and_an_empty_one_are_told_apart(database_url, value):
    async def test(bench):
        worker = await begin(bench, *schedule("act"))
        item = await worker.activity()
        await bench.board.complete_activity(pb.ActivityResponse(
            instanceId="one", taskId=0, completionToken=item.token, result=None if value is None else {"value": value}))
        completed = new(await worker.turn())[1].taskCompleted
        assert completed.HasField("result") is (value is not None)

    on_bench(database_url, test)


@pytest.mark.parametrize("gone", ["ended", "purged", "replaced"])
def test_the_result_of_an_execution_that_is_gone_is_dropped(database_url, gone):
    async def test(bench):
        worker = await begin(bench, *schedule("act"))
        activity = await worker.activity()
        await bench.service.raise_event("one", "go", None)
        await bench.answer(await worker.turn(), end(result="done"))
        if gone != "ended":
            assert (await bench.service.purge(["one"], recursive=False)).count == 1
        if gone == "replaced":
            await bench.start("flow", "one")
            await bench.answer(await worker.turn())
        await bench.result(activity, "late")
        if gone == "replaced":
            await bench.service.raise_event("one", "last", None)
            assert kinds(new(await worker.turn())) == ["orchestratorStarted", "eventRaised"]
        else:
            await bench.start("flow", "next")
            assert (await worker.turn()).key.instance_id == "next"
            state = await bench.service.get("one", payloads=True)
            assert (state.output if state is not None else None) == ("done" if gone == "ended" else None)

    on_bench(database_url, test)


def test_actions_are_recorded_in_order_of_their_ids_behind_what_was_delivered(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one", event=("go", None))
        await bench.answer(await worker.turn(), end(result="done", number=9), child("below", number=3),
                           *schedule("act", first=2), timer(1, soon(9)), send(0, "nobody", "dropped"))
        found = await history(bench, "one")
        assert kinds(found) == ["orchestratorStarted", "executionStarted", "eventRaised", "eventSent", "timerCreated",
                                "taskScheduled", "subOrchestrationInstanceCreated", "executionCompleted"]
        assert [event.eventId for event in found] == [-1, -1, -1, 0, 1, 2, 3, 9]
        assert all(event.timestamp.seconds > 1_000_000 for event in found)

    on_bench(database_url, test)


def test_every_turn_is_later_than_the_one_before_and_than_every_timer_that_it_delivers(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        clocks, due = [], None
        for number in range(6):
            item = await worker.turn()
            clocks.append(new(item)[0].timestamp.ToNanoseconds())
            fired = [event.timerFired.fireAt for event in new(item) if event.HasField("timerFired")]
            assert fired == ([due] if due is not None else [])
            assert all(clocks[-1] > stamp.ToNanoseconds() for stamp in fired)
            due = soon(0.02 * number)
            due.nanos += 1 - due.nanos % 2  # finer than a microsecond
            await bench.answer(item, timer(number, due))
        assert clocks == sorted(set(clocks))

    on_bench(database_url, test)


@pytest.mark.parametrize("cleared", [None, {"value": ""}])
def test_a_custom_status_is_what_the_last_turn_said(database_url, cleared):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        shown = []
        for status in ({"value": "first"}, {"value": '""'}, cleared):
            item = await worker.turn()
            await bench.board.complete_turn(pb.OrchestratorResponse(
                instanceId="one", completionToken=item.token, customStatus=status))
            shown.append((await bench.service.get("one", payloads=False)).row.custom_status)
            await bench.service.raise_event("one", "go", None)
        assert shown == ["first", '""', None]

    on_bench(database_url, test)


def test_an_id_that_a_retry_uses_again_has_a_result_for_each_attempt(database_url):
    async def test(bench):
        worker = await begin(bench, *schedule("act", first=1))
        for attempt in range(3):
            item = await worker.activity()
            assert item.row.task_id == 1
            await bench.result(item, str(attempt))
            turn = await worker.turn()
            assert new(turn)[1].taskCompleted.result.value == str(attempt)
            await bench.answer(turn, *schedule("act", first=1))
        assert kinds(await history(bench, "one")).count("taskScheduled") == 4

    on_bench(database_url, test)


def test_an_answer_that_cannot_be_carried_out_sets_its_message_aside_and_the_next_ones_flow(database_url, monkeypatch):
    monkeypatch.setattr("durabletask_sql.dispatch.delays.delay_seconds", lambda _: 0.01)

    async def test(bench):
        worker = await begin(bench)
        await bench.service.raise_event("one", "poison", None)
        for _ in range(5):
            item = await worker.turn()
            assert names(new(item)) == ["poison"]
            await bench.answer(item, pb.OrchestratorAction(id=1))
        await bench.service.raise_event("one", "healthy", None)
        item = await worker.turn()
        assert names(new(item)) == ["healthy"]
        assert "poison" not in names(past(item))
        await bench.answer(item, end())
        assert await bench.status("one") == "COMPLETED"

    on_bench(database_url, test)


def test_only_the_first_of_two_answers_to_one_turn_counts(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        item = await worker.turn()
        await bench.answer(item, again("next"))
        await bench.answer(item, end(result="late"))
        assert await bench.status("one") == "RUNNING"
        assert kinds(new(await worker.turn())) == ["orchestratorStarted", "executionStarted"]

    on_bench(database_url, test)


def test_an_event_that_is_sent_arrives_as_one_that_is_raised(database_url):
    async def test(bench):
        worker = await begin(bench)
        await bench.start("flow", "other")
        await bench.answer(await worker.turn(), send(1, "one", "Hello", "data"), send(2, "nobody", "dropped"))
        found = new(await worker.turn())[1]
        assert (found.eventId, found.eventRaised.name, found.eventRaised.input.value) == (-1, "Hello", "data")
        assert await bench.service.get("nobody", payloads=False) is None

    on_bench(database_url, test)


def test_what_no_execution_waits_for_is_deleted_without_a_turn(database_url):
    """A result for an execution that is gone wakes nobody, and is not there for ever."""
    async def test(bench):
        worker = await begin(bench, child("below", number=1))
        below = await worker.turn()
        await bench.service.raise_event("one", "go", None)
        await bench.answer(await worker.turn(), again("next"))
        await bench.answer(await worker.turn())
        await bench.answer(below, end(result="for nobody"))
        await bench.until(lambda: rows(database_url, "SELECT count(*) FROM control_queue") == [(0,)])
        assert worker.turns.empty()

    on_bench(database_url, test)


def test_messages_before_the_first_turn_come_behind_the_start_in_their_order(database_url):
    async def test(bench):
        await bench.start("flow", "one")
        for name in ("a", "b", "c"):
            await bench.service.raise_event("one", name, None)
        await claimed(bench, "one", 4)
        item = await bench.connect(Worker()).turn()
        assert kinds(new(item))[:2] == ["orchestratorStarted", "executionStarted"]
        assert names(new(item)) == ["a", "b", "c"]

    on_bench(database_url, test)


def test_an_abandoned_turn_comes_back_later_each_time_until_one_is_answered(database_url, monkeypatch):
    asked = []
    monkeypatch.setattr("durabletask_sql.dispatch.delays.delay_seconds", lambda times: asked.append(times) or 0.0)

    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        for _ in range(3):
            await bench.board.abandon_turn((await worker.turn()).token)
        await bench.answer(await worker.turn())
        await bench.service.raise_event("one", "go", None)
        await bench.board.abandon_turn((await worker.turn()).token)
        await worker.turn()
        assert asked == [1, 2, 3, 1]

    on_bench(database_url, test)


def test_timers_that_a_rewind_arms_again_need_no_poll_to_be_taken_up(database_url, monkeypatch):
    """A poll may come seconds later, and they may be due."""
    async def test(bench):
        worker = await begin(bench, timer(1, soon(40)), *schedule("act", first=2))
        await bench.board.complete_activity(pb.ActivityResponse(
            instanceId="one", taskId=2, completionToken=(await worker.activity()).token, failureDetails=DETAILS))
        await bench.answer(await worker.turn(), end(FAILED, failure=DETAILS))
        assert await bench.status("one") == "FAILED"
        dispatcher = bench.runtime.dispatcher
        window, polls = dispatcher._memory.window, []

        async def no_poll():
            polls.append(len(window))
            return False

        monkeypatch.setattr(dispatcher, "_poll", no_poll)
        await bench.until(lambda: bool(polls))
        assert len(window) == 0
        await bench.service.rewind("one", None)
        await worker.turn()
        await bench.until(lambda: len(window) == 1)

    on_bench(database_url, test)


def test_a_turn_of_what_is_to_be_read_afresh_comes_again_at_once_when_its_worker_is_lost(database_url, monkeypatch):
    """Nothing else has to happen first: it could not be read while it was out."""
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        turn = await worker.turn()
        dispatcher = bench.runtime.dispatcher
        polls = []

        async def no_poll():
            polls.append(turn)
            return False

        monkeypatch.setattr(dispatcher, "_poll", no_poll)
        other = bench.connect(Worker(name="other"))
        await bench.until(lambda: bool(polls) and dispatcher._owner.is_idle)
        dispatcher._memory.read_afresh(turn.key)  # as a late message of an older execution has it
        bench.board.disconnect(worker)
        assert (await other.turn()).key == turn.key

    on_bench(database_url, test)
