"""Work goes to those who take it, and what nobody takes waits without holding up anything else."""

from __future__ import annotations

from dispatch.bench import Worker, finish, kinds, on_bench, only, schedule
from durabletask_sql.ports.work import Profile
from durabletask_sql.protocol import taskhub_pb2 as pb


def test_an_orchestration_that_nobody_takes_waits_and_the_others_run(database_url):
    async def test(bench):
        worker = bench.connect(Worker(only(["flow"])))
        for number in range(3):
            await bench.start("other", f"o{number}")
        await bench.start("flow", "f")
        item = await worker.turn()
        assert item.key.instance_id == "f"
        await bench.answer(item, finish())
        assert await bench.status("f") == "COMPLETED"
        assert await bench.status("o0") == "PENDING"
        late = bench.connect(Worker(only(["other"])))
        assert sorted([(await late.turn()).key.instance_id for _ in range(3)]) == ["o0", "o1", "o2"]
        assert worker.turns.empty()

    on_bench(database_url, test)


def test_an_orchestration_goes_to_a_worker_of_its_version(database_url):
    async def test(bench):
        old = bench.connect(Worker(only([("flow", ["1.0"])])))
        new = bench.connect(Worker(only([("flow", ["2.0-RC"]), ("flow", [""])])))
        for instance_id, version in (("a", "1.0"), ("b", "2.0-rc"), ("c", None), ("d", "3")):
            await bench.start("flow", instance_id, version=version)
        assert (await old.turn()).key.instance_id == "a"
        assert {(await new.turn()).key.instance_id for _ in range(2)} == {"b", "c"}
        assert await bench.status("d") == "PENDING"
        assert old.turns.empty()
        assert new.turns.empty()

    on_bench(database_url, test)


def test_an_activity_without_a_version_is_matched_by_its_orchestrations(database_url):
    async def test(bench):
        flows = bench.connect(Worker(only(["flow"])))
        one = bench.connect(Worker(only([], [("step", ["1"])])))
        two = bench.connect(Worker(only([], [("step", ["2"])])))
        none = bench.connect(Worker(only([], [("step", [""])])))
        await bench.start("flow", "a", version="1")
        item = await flows.turn()
        await bench.answer(item, *schedule("step"), *schedule("step", first=1, version="2"),
                           *schedule("step", first=2, version=""))
        found = [await worker.activity() for worker in (one, two, none)]
        assert [item.row.task_id for item in found] == [0, 1, 2]
        assert all(worker.activities.empty() for worker in (one, two, none))

    on_bench(database_url, test)


def test_an_activity_that_nobody_takes_waits_and_the_others_run(database_url):
    async def test(bench):
        worker = bench.connect(Worker(only(["flow"], ["step"])))
        await bench.start("flow", "a")
        await bench.answer(await worker.turn(), *schedule("other", "step", "other"))
        item = await worker.activity()
        assert item.row.name == "step"
        await bench.result(item)
        await bench.answer(await worker.turn())
        late = bench.connect(Worker(only([], ["other"])))
        assert [(await late.activity()).row.task_id for _ in range(2)] == [0, 2]

    on_bench(database_url, test)


def test_a_full_worker_does_not_hold_up_what_another_takes(database_url):
    async def test(bench):
        busy = bench.connect(Worker(only(["slow"]), turn_slots=1))
        idle = bench.connect(Worker(only(["quick"]), turn_slots=1))
        for number in range(5):
            await bench.start("slow", f"s{number}")
        await bench.start("quick", "q")
        assert (await idle.turn()).key.instance_id == "q"
        assert (await busy.turn()).key.instance_id == "s0"

    on_bench(database_url, test)


def test_a_worker_that_leaves_gives_its_work_to_those_who_take_it(database_url):
    async def test(bench):
        leaving = bench.connect(Worker(only(["flow"], ["step"])))
        await bench.start("flow", "a")
        await bench.answer(await leaving.turn(), *schedule("step"))
        await leaving.activity()
        bench.connect(Worker(only(["other"], ["other"])))
        bench.board.disconnect(leaving)
        heir = bench.connect(Worker(only(["flow"], ["step"])))
        item = await heir.activity()
        await bench.result(item)
        await bench.answer(await heir.turn(), finish())
        assert await bench.status("a") == "COMPLETED"

    on_bench(database_url, test)


def test_what_needs_no_worker_is_done_without_one(database_url):
    """A sub-orchestration that nobody takes is ended by its parent's termination all the same (S-416)."""
    async def test(bench):
        worker = bench.connect(Worker(only(["flow"])))
        await bench.start("flow", "parent")
        child = finish()
        child.ClearField("completeOrchestration")
        child.createSubOrchestration.name, child.createSubOrchestration.instanceId = "unknown", "child"
        await bench.answer(await worker.turn(), child)
        await bench.service.terminate("parent", None, recursive=True)
        item = await worker.turn()
        assert kinds(item.new_events) == ["orchestratorStarted", "executionTerminated"]
        await bench.answer(item)
        state = await bench.service.wait_for_completion("child", payloads=False)
        assert state.row.status.name == "TERMINATED"

    on_bench(database_url, test)


def test_an_answer_without_a_token_counts_for_the_open_turn_and_task(database_url):
    async def test(bench):
        worker = bench.connect(Worker(Profile(echoes_tokens=False)))
        await bench.start("flow", "a")
        await bench.answer(await worker.turn(), *schedule("step", "step"), token="")
        for item in [await worker.activity(), await worker.activity()]:
            await bench.result(item, token="")
        item = await worker.turn()
        await bench.answer(item, finish(), token="")
        await bench.service.wait_for_completion("a", payloads=False)

    on_bench(database_url, test)


def test_a_task_is_not_given_twice_to_workers_that_answer_without_tokens(database_url):
    """Retries re-use task ids: of two tasks with one id only one is out, else their results could not be told apart."""
    async def test(bench):
        worker = bench.connect(Worker(Profile(echoes_tokens=False)))
        await bench.start("flow", "a")
        await bench.answer(await worker.turn(), *schedule("step"), *schedule("again"), token="")
        first = await worker.activity()
        assert worker.activities.empty()
        await bench.result(first, first.row.name, token="")
        second = await worker.activity()
        assert {first.row.name, second.row.name} == {"step", "again"}
        assert first.row.seq != second.row.seq

    on_bench(database_url, test)


def test_a_task_that_is_out_without_a_token_may_go_to_a_worker_that_echoes(database_url):
    async def test(bench):
        silent = bench.connect(Worker(Profile(echoes_tokens=False)))
        await bench.start("flow", "a")
        await bench.answer(await silent.turn(), *schedule("step"), *schedule("again"), token="")
        await silent.activity()
        echoing = bench.connect(Worker(turn_slots=0))
        assert (await echoing.activity()).row.task_id == 0

    on_bench(database_url, test)


def test_an_item_that_was_given_back_goes_to_another_worker(database_url, monkeypatch):
    monkeypatch.setattr("durabletask_sql.dispatch.delays.delay_seconds", lambda _: 0.0)
    monkeypatch.setattr("durabletask_sql.dispatch.activities.delay_seconds", lambda _: 0.0)

    async def test(bench):
        refusing, other = Worker(turn_slots=100, activity_slots=100), Worker(turn_slots=1, activity_slots=1)
        bench.connect(refusing)
        bench.connect(other)
        await bench.start("flow", "a")
        await bench.board.abandon_turn((await refusing.turn()).token)
        await bench.answer(await other.turn(), *schedule("step"))
        await bench.board.abandon_activity((await refusing.activity()).token)
        await bench.result(await other.activity())

    on_bench(database_url, test)


def test_the_parts_of_an_answer_go_with_the_turn(database_url):
    async def test(bench):
        first = bench.connect(Worker())
        await bench.start("flow", "a")
        item = await first.turn()

        def part(token, index, *actions, partial):
            return bench.board.complete_turn(pb.OrchestratorResponse(
                instanceId="a", completionToken=token, isPartial=partial, chunkIndex={"value": index}, actions=actions))

        await part(item.token, 0, *schedule("lost"), partial=True)
        bench.board.disconnect(first)
        second = bench.connect(Worker())
        again = await second.turn()
        await part(item.token, 1, *schedule("late", first=1), partial=False)  # of the stale turn: dropped
        await part(again.token, 0, *schedule("kept"), partial=True)
        await part(again.token, 1, *schedule("last", first=1), partial=False)
        assert [(await second.activity()).row.name for _ in range(2)] == ["kept", "last"]
        assert second.activities.empty()

    on_bench(database_url, test)
