"""An instance rests between turns that yield nothing while results stream in."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from dispatch.bench import Worker, finish, kinds, on_bench, schedule
from durabletask_sql.clock import FakeClock
from durabletask_sql.dispatch import rests
from durabletask_sql.dispatch.rests import LEAST_EVENTS, LONGEST_SECONDS, LOOK_SECONDS, Rests
from durabletask_sql.protocol import taskhub_pb2 as pb
from stateful.loop import StillLoop

NEVER = 3600.0
STEP = LOOK_SECONDS + 0.001


def completed(item):
    """How many results a turn tells of."""
    return kinds(item.new_events).count("taskCompleted")


async def begin(bench, count):
    """Start an orchestration of so many activities; return its worker, and the activities."""
    worker = bench.connect(Worker(activity_slots=1000))
    await bench.start("flow", "one")
    await bench.answer(await worker.turn(), *schedule(*["step"] * count))
    return worker, [await worker.activity() for _ in range(count)]


def test_results_that_come_after_a_turn_in_vain_are_told_together(database_url, monkeypatch):
    monkeypatch.setattr(rests, "LOOK_SECONDS", NEVER)  # the test looks

    async def test(bench):
        worker, (first, *others) = await begin(bench, LEAST_EVENTS)
        await bench.result(first)
        turn = await worker.turn()
        bench.clock.moved += 5  # so long it takes
        await bench.answer(turn)
        for item in others[:20]:
            await bench.result(item)
        mem = bench.runtime.dispatcher._memory.find(turn.key)
        await bench.until(lambda: len(mem.rows) == 20)
        assert worker.turns.empty()
        bench.board._turns._rests._look(mem, rests._last(mem), 0.0)  # nothing more has arrived
        assert completed(await worker.turn()) == 20

    on_bench(database_url, test)


@pytest.mark.parametrize("what", ["action", "status", "short"])
def test_whoever_acts_or_has_a_short_history_goes_on_at_once(database_url, monkeypatch, what):
    monkeypatch.setattr(rests, "LOOK_SECONDS", NEVER)

    async def test(bench):
        worker, (first, second, *_) = await begin(bench, 3 if what == "short" else LEAST_EVENTS)
        await bench.result(first)
        turn = await worker.turn()
        bench.clock.moved += 5
        answer = pb.OrchestratorResponse(
            instanceId="one", completionToken=turn.token, actions=schedule("step", first=500) if what == "action" else [])
        if what == "status":
            answer.customStatus.value = "one of many"
        await bench.board.complete_turn(answer)
        await bench.result(second)
        assert completed(await worker.turn()) == 1

    on_bench(database_url, test)


def test_who_rests_is_still_there_for_what_comes_later(database_url):
    async def test(bench):
        worker, (first, second, *_) = await begin(bench, LEAST_EVENTS)
        await bench.result(first)
        turn = await worker.turn()
        bench.clock.moved += 5
        await bench.answer(turn)
        await bench.result(second)
        await bench.answer(await worker.turn(), finish())
        assert await bench.status("one") == "COMPLETED"

    on_bench(database_url, test)


class Resting:
    """Somebody who rests, under a clock that the test moves."""

    def __init__(self, seconds):
        self.clock = FakeClock()
        self.loop = StillLoop(self.clock)
        self.mem = SimpleNamespace(key="one", rests=False, rows=[])
        self.considered = []
        self.run(0, lambda: Rests(self, lambda: None).begin(self.mem, seconds))

    def find(self, key):
        assert key == "one"
        return self.mem

    def consider(self, mem):
        self.considered.append(mem)

    @property
    def rested(self):
        assert self.considered == ([] if self.mem.rests else [self.mem])
        return not self.mem.rests

    def arrive(self):
        self.mem.rows.append(SimpleNamespace(seq=len(self.mem.rows)))

    def run(self, seconds, act=lambda: None):
        async def go():
            self.clock.advance(seconds)
            act()
            for _ in range(3):
                await asyncio.sleep(0)

        self.loop.run_until_complete(go())


@pytest.fixture
def resting(request):
    found = Resting(request.param)
    assert found.mem.rests
    yield found
    found.loop.close()


@pytest.mark.parametrize("resting", [0.2], indirect=True)
def test_a_rest_ends_when_nothing_has_arrived_for_a_moment(resting):
    for _ in range(5):
        resting.arrive()
        resting.run(STEP)
        assert not resting.rested
    resting.run(STEP)
    assert resting.rested


@pytest.mark.parametrize(("resting", "longest"), [(0.2, 0.2), (60, LONGEST_SECONDS)], indirect=["resting"])
def test_a_rest_lasts_as_long_as_the_turn_did_at_most(resting, longest):
    spent = 0.0
    while not resting.rested:
        resting.arrive()
        resting.run(STEP)
        spent += STEP
    assert longest - STEP <= spent <= longest + STEP


@pytest.mark.parametrize("resting", [0.2], indirect=True)
def test_the_end_of_a_rest_ends_no_delay_that_has_begun_meanwhile(resting):
    resting.mem.blocked = True
    resting.run(STEP)
    assert resting.rested
    assert resting.mem.blocked
