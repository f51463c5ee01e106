"""Items that kill their worker are set aside and nothing else is; workers that fail everything set nothing aside."""

from __future__ import annotations

import asyncio
import logging

from dispatch.bench import Worker, finish, on_bench, only, schedule
from durabletask_sql.clock import SystemClock
from durabletask_sql.model.quarantine import AsideKind, AsideOutcome
from durabletask_sql.partitions.suspects import COUNTED_FAILURES, PATIENCE_SECONDS, SUSPECT_FROM
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import iter_events
from durabletask_sql.service.abstraction import Signal
from durabletask_sql.service.quarantine import Quarantine
from durabletask_sql.storage.quarantine import SqlQuarantine
from tables import rows

LOSSES = SUSPECT_FROM + COUNTED_FAILURES


def quarantine_of(bench) -> Quarantine:
    return Quarantine(SqlQuarantine(bench.runtime.dispatcher._committer._database, bench.runtime.hub), SystemClock())


async def aside(bench):
    return list((await quarantine_of(bench).page()).items)


def text_of(item) -> str:
    """What an item is about: the texts of its events."""
    events = item.new_events if hasattr(item, "new_events") else item.operations if hasattr(item, "operations") else None
    if events is None:
        return pb.HistoryEvent.FromString(item.row.event).taskScheduled.input.value
    return " ".join(str(event) for event in iter_events(events))


class Fleet:
    """One worker after the other: each serves until it is given something deadly, then the next one connects."""

    def __init__(self, bench, answer_turn, deadly="deadly", only_with="", **worker) -> None:
        self.bench = bench
        self._only = only_with
        self.deadly = deadly
        self.losses = 0
        self._answer_turn = answer_turn
        self._worker = worker

    def _received(self, worker):
        found = []
        for queue in (worker.turns, worker.activities, worker.batches):
            while not queue.empty():
                found.append(queue.get_nowait())
        return found

    async def serve(self, is_done) -> None:
        """Serve until `is_done`. A worker looks at all that it has before it does any of it: it dies as early as it can."""
        async with asyncio.timeout(60):
            while not await is_done():
                await self._serve_one(is_done)

    async def _serve_one(self, is_done) -> None:
        worker = self.bench.connect(Worker(name=f"worker {self.losses}", **self._worker))
        while not await is_done():
            items = self._received(worker)
            if any(self.deadly in text_of(item) and (not self._only or hasattr(item, self._only)) for item in items):
                self.losses += 1
                break
            for item in items:
                await self._answer(item)
            await asyncio.sleep(0.002)
        self.bench.board.disconnect(worker, lost=not await is_done())

    async def _answer(self, item) -> None:
        if hasattr(item, "new_events"):
            await self.bench.answer(item, *self._answer_turn(item))
        elif hasattr(item, "operations"):
            await self.bench.ran(item, state="s")
        else:
            await self.bench.result(item)


def has_set_aside(bench, count=1, ended=()):
    async def is_done():
        return len(await aside(bench)) >= count and all([await bench.status(one) == "COMPLETED" for one in ended])
    return is_done


def one_activity(item):
    """An orchestration that calls one activity with its input and ends."""
    events = list(iter_events(item.new_events))
    started = [event.executionStarted.input.value for event in events if event.HasField("executionStarted")]
    return schedule("act", text=started[0]) if started else [finish()]


def test_an_activity_that_kills_its_worker_is_set_aside_and_no_other(database_url):
    async def test(bench):
        names = [f"flow-{number}" for number in range(30)]
        for name in names:
            await bench.start("flow", name, input="deadly" if name == "flow-7" else "harmless")
        fleet = Fleet(bench, one_activity, only_with="row", activity_slots=8)
        await fleet.serve(has_set_aside(bench, 1, [name for name in names if name != "flow-7"]))
        (item,) = await aside(bench)
        assert (item.kind, item.name, item.key.instance_id) == (AsideKind.ACTIVITY, "act", "flow-7")
        assert (item.attempts, item.worker) == (LOSSES, f"worker {LOSSES - 1}")
        assert f"lost {LOSSES} times in a row" in item.cause
        assert fleet.losses == LOSSES
        assert set((await quarantine_of(bench).redrive([str(item.id)])).values()) == {AsideOutcome.DONE}
        mended = Fleet(bench, one_activity, deadly="nothing is")
        await mended.serve(has_set_aside(bench, 0, ["flow-7"]))
        assert await aside(bench) == []

    on_bench(database_url, test)


def test_of_an_instances_messages_the_one_that_kills_is_set_aside_and_the_others_go_on(database_url):
    async def test(bench):
        seen = []

        def answer(item):
            seen.extend(event.eventRaised.name for event in iter_events(item.new_events) if event.HasField("eventRaised"))
            return [finish()] if "last" in seen else []

        await bench.start("flow", "one")
        for name in ("first", "deadly", "second"):
            await bench.service.raise_event("one", name, None)
        fleet = Fleet(bench, answer)
        await fleet.serve(has_set_aside(bench))
        (item,) = await aside(bench)
        assert (item.kind, item.name, item.rows) == (AsideKind.TURN, "flow", 1)
        assert fleet.losses <= 10
        await bench.service.raise_event("one", "last", None)
        await fleet.serve(has_set_aside(bench, 1, ["one"]))
        assert seen == ["first", "second", "last"]

    on_bench(database_url, test)


def test_an_operation_that_kills_is_set_aside_and_the_entitys_others_run(database_url):
    async def test(bench):
        for operation in ("one", "deadly", "two"):
            await bench.entities.signal(Signal("@counter@a", operation))
        fleet = Fleet(bench, one_activity)
        await fleet.serve(has_set_aside(bench))
        (item,) = await aside(bench)
        assert (item.kind, item.name, item.rows) == (AsideKind.ENTITY, "counter", 1)
        assert fleet.losses <= 10
        await bench.entities.signal(Signal("@counter@a", "three"))
        worker = bench.connect(Worker())
        while "three" not in text_of(item := await worker.batch()):
            await bench.ran(item, state="s")

    on_bench(database_url, test)


def test_two_losses_in_a_row_change_nothing(database_url):
    async def test(bench):
        flows = bench.connect(Worker(only(["flow"])))
        await bench.start("flow", "one")
        await bench.answer(await flows.turn(), *schedule(*["act"] * 5))
        for _ in range(SUSPECT_FROM):
            worker = bench.connect(Worker(only([], ["act"])))
            items = [await worker.activity() for _ in range(5)]  # all at once
            assert [item.row.task_id for item in items] == list(range(5))
            bench.board.disconnect(worker)
        worker = bench.connect(Worker(only([], ["act"])))
        first = await worker.activity()
        assert worker.activities.empty()
        await bench.result(first)
        assert {(await worker.activity()).row.task_id for _ in range(1)} <= set(range(5))

    on_bench(database_url, test)


class InOrder(Worker):
    """A worker that does one thing after the other, in the order in which they came."""

    offer_turn = offer_activity = lambda self, item: self.turns.put_nowait(item)


async def lose_workers(bench, name, times):
    """Have a flow's activity be with so many workers that are lost; the flow waits for it."""
    await bench.start("flow", name)
    flows = bench.connect(Worker(only(["flow"])))
    await bench.answer(await flows.turn(), *schedule("act"))
    bench.board.disconnect(flows, lost=False)
    for _ in range(times):
        worker = bench.connect(Worker(only([], ["act"])))
        await worker.activity()
        bench.board.disconnect(worker)


def test_what_waits_behind_others_at_a_worker_is_not_set_aside_when_that_is_killed_again_and_again(database_url):
    async def test(bench):
        await lose_workers(bench, "one", SUSPECT_FROM)
        for life in range(COUNTED_FAILURES + 1):
            for number in range(30):
                await bench.start("other", f"other-{life}-{number}")
            worker = bench.connect(InOrder(turn_slots=50))
            for _ in range(10):
                item = await worker.turn()
                await (bench.answer(item, finish()) if hasattr(item, "new_events") else bench.result(item))
            bench.board.disconnect(worker)
        assert await aside(bench) == []
        assert rows(database_url, "SELECT count(*) FROM activity_queue") == [(0,)]

    on_bench(database_url, test)


def test_what_was_lost_as_a_suspect_goes_to_a_worker_that_is_always_busy_after_a_while(database_url):
    async def lose(bench):
        await lose_workers(bench, "one", SUSPECT_FROM + 1)
        for name in ("first", "second"):
            await bench.start("busy", name)
        await bench.until(lambda: not bench.runtime.dispatcher._deliveries._marks)

    on_bench(database_url, lose)

    async def test(bench):
        await bench.until(lambda: len(bench.runtime.dispatcher._memory.ready) == 2)
        busy = bench.connect(Worker(only(["busy"], ["act"])))
        await bench.answer(await busy.turn(), finish())
        await bench.until(lambda: bool(bench.board._activities._waiting))
        await bench.upkeep.look()
        assert busy.activities.empty()
        bench.clock.moved = PATIENCE_SECONDS
        await bench.upkeep.look()
        assert (await busy.activity()).row.failed == SUSPECT_FROM + 1

    on_bench(database_url, test)


def test_workers_that_were_asked_to_go_leave_no_mark(database_url):
    async def test(bench):
        await bench.start("flow", "one")
        for _ in range(3 * LOSSES):
            worker = bench.connect(Worker())
            await worker.turn()
            bench.board.disconnect(worker, lost=False)
        assert await aside(bench) == []

    on_bench(database_url, test)


def test_a_worker_that_dies_of_everything_is_reported_and_nothing_is_set_aside(database_url, caplog):
    async def test(bench):
        names = [f"flow-{number}" for number in range(5)]
        for name in names:
            await bench.start("flow", name, input="harmless")
        fleet = Fleet(bench, one_activity, deadly="")
        worker = bench.connect(Worker())
        for _ in names:  # one that alone is known of, while the others are still on their way, would be to blame
            await worker.turn()
        bench.board.disconnect(worker)
        for _ in range(10 * LOSSES):
            worker = bench.connect(Worker())
            await worker.turn()
            bench.board.disconnect(worker)
        assert await aside(bench) == []
        fleet.deadly = "nothing is"
        await fleet.serve(has_set_aside(bench, 0, names))
        assert await aside(bench) == []

    with caplog.at_level(logging.ERROR, "durabletask_sql"):
        on_bench(database_url, test)
    assert any("is taken for its own fault" in record.getMessage() for record in caplog.records)


def test_answers_that_cannot_be_carried_out_count_against_the_items_of_a_worker_that_gets_on(database_url, monkeypatch):
    monkeypatch.setattr("durabletask_sql.dispatch.delays.delay_seconds", lambda _: 0.0)

    async def test(bench):
        await bench.start("flow", "fine")
        for number in range(3):
            await bench.start("bad", f"bad-{number}")
        worker = bench.connect(Worker())
        while len(await aside(bench)) < 3:
            item = await worker.turn()
            good = item.name == "flow"
            await bench.answer(item, finish() if good else pb.OrchestratorAction(
                id=1, completeOrchestration=pb.CompleteOrchestrationAction(orchestrationStatus=pb.ORCHESTRATION_STATUS_RUNNING)))
        items = await aside(bench)
        assert {item.key.instance_id for item in items} == {f"bad-{number}" for number in range(3)}
        assert {item.attempts for item in items} == {COUNTED_FAILURES}

    on_bench(database_url, test)


def test_an_abandoned_item_is_never_set_aside(database_url, monkeypatch):
    monkeypatch.setattr("durabletask_sql.dispatch.delays.delay_seconds", lambda _: 0.0)

    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        for _ in range(5 * LOSSES):
            await bench.board.abandon_turn((await worker.turn()).token)
        await bench.answer(await worker.turn(), finish())
        assert await bench.status("one") == "COMPLETED"

    on_bench(database_url, test)


def test_marks_outlive_their_host(database_url):
    async def lose_thrice(bench):
        await bench.start("flow", "one")
        await bench.start("other", "two")
        flows, others = bench.connect(Worker(only(["flow"]))), bench.connect(Worker(only(["other"])))
        await bench.answer(await flows.turn(), *schedule("act"))
        await others.turn()
        bench.board.disconnect(others)
        for _ in range(SUSPECT_FROM):
            worker = bench.connect(Worker(only([], ["act"])))
            await worker.activity()
            bench.board.disconnect(worker)
        deliveries = bench.runtime.dispatcher._deliveries
        await bench.until(lambda: not deliveries._marks)

    on_bench(database_url, lose_thrice)
    assert rows(database_url, "SELECT failed_deliveries FROM activity_queue") == [(SUSPECT_FROM,)]
    assert rows(database_url, "SELECT failed_deliveries FROM control_queue") == [(1,)]

    async def lose_the_rest(bench):
        for _ in range(COUNTED_FAILURES):
            worker = bench.connect(Worker(only([], ["act"])))
            await worker.activity()
            bench.board.disconnect(worker)
        await has_set_aside(bench)()
        await bench.until(lambda: bool(rows(database_url, "SELECT 1 FROM quarantine")))
        assert [(item.kind, item.attempts) for item in await aside(bench)] == [(AsideKind.ACTIVITY, LOSSES)]

    on_bench(database_url, lose_the_rest)


def test_an_answer_counts_although_its_worker_is_lost_while_it_waits_for_a_commit(database_url, monkeypatch):
    async def test(bench):
        await bench.start("flow", "one")
        worker = bench.connect(Worker())
        await bench.answer(await worker.turn(), *schedule("act"))
        task, held = await worker.activity(), asyncio.Event()
        committer = bench.runtime.dispatcher._committer
        commit = committer.commit

        async def late(group):
            await held.wait()
            return await commit(group)

        monkeypatch.setattr(committer, "commit", late)
        result = asyncio.create_task(bench.result(task))
        ahead = await worker.turn()  # its message is not durable yet
        answer = asyncio.create_task(bench.answer(ahead, finish()))
        await asyncio.sleep(0)
        answer.cancel()
        bench.board.disconnect(worker)
        held.set()
        await result
        heir = bench.connect(Worker())
        assert (await bench.service.wait_for_completion("one", payloads=False)).row.status.name == "COMPLETED"
        assert heir.turns.empty()

    on_bench(database_url, test)
