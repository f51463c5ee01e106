"""A real host on a real database, under a clock that the test moves, with the model beside it.

Each step does one thing to both, waits until the host has come to rest, and compares.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Sequence
from typing import Any

from dispatch.bench import only
from durabletask_sql.clock import MICROSECONDS, FakeClock
from durabletask_sql.errors import (
    AlreadyExistsError,
    DurableTaskSqlError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
)
from durabletask_sql.host import Host, HubRuntime
from durabletask_sql.partitions.limits import MemoryLimits
from durabletask_sql.ports.work import ActivityItem
from durabletask_sql.service.orchestrations import Orchestrations
from durabletask_sql.settings import Settings
from durabletask_sql.storage.store import SqlStore
from stateful.answers import LONGEST_DELAY, MOST_LOST, Answers, input_of
from stateful.bench import Bench, OfferedBatch, OfferedTurn
from stateful.entity_answers import EntityAnswers
from stateful.entity_model import Batch
from stateful.faults import Calls, Fault, FaultyStore, Port
from stateful.instances import Taken
from stateful.loop import StillLoop
from stateful.model import Model
from stateful.snapshot import Snapshot, Tables, differences, is_live, is_running

Effect = Callable[[Model], object]
Operation = Callable[[], Awaitable[object]]

_QUIET = 10  # so many turns of the loop with nothing to do are rest
_STALLED = 50
_NUDGE_SECONDS = 0.05
_ROUNDS = 100
_HANGS_SECONDS = 60.0
_REFUSALS = {AlreadyExistsError: "exists", InvalidArgumentError: "invalid", NotFoundError: "unknown",
             FailedPreconditionError: "live"}
# One instance in memory, one message of it, no history kept.
_TIGHT = MemoryLimits(partition_messages=1, share_messages=1, share_bytes=1, instances=1, history_bytes=1)
_POLLS = 100  # so many looks for what others wrote find it, though a host that hears the others looks rarely


class _Nobody:
    """An owner in another process: it hears of nothing."""

    def wake(self, keys: object) -> None:
        del keys

    forget = wake


class Stage(Answers, EntityAnswers):
    """One task hub of a database: host, benches, model."""

    def __init__(self, url: str, hub: str, *, is_tight: bool = False) -> None:
        self.clock = FakeClock()
        self.is_tight = is_tight
        self.model = Model()
        self.benches = {bench.name: bench for bench in (
            Bench("first"), Bench("second"), Bench("orchestrations", profile=only(orchestrations=["script"])),
            Bench("activities", profile=only(activities=["do"])))}
        self.connected: set[str] = set()
        self.turns: dict[str, Taken | None] = {}  # by token; None: its answer does not count
        self.batches: dict[str, Batch | None] = {}
        self.spent_batches: list[OfferedBatch] = []
        self.purged: set[str] = set()
        self.spent: list[OfferedTurn] = []
        self.spent_tasks: list[ActivityItem] = []
        self.resting: dict[str, int] = {}  # until when an instance, or an activity by its input, may wait
        self.stale: set[str] = set()  # whose turn may be out no longer, which no newer turn has told
        self._epochs: dict[int, int] = {}
        self.losses = Counter[str]()  # how often in a row nothing came of an instance's turn, of a task or a batch
        self.aside = Calls()  # of another process
        self.failed = True  # until the step that is under way has passed
        self._settings = Settings(database=url, hubs=(hub,), partitions=3)
        self._tables = Tables(url)
        self._loop = StillLoop(self.clock)
        self._run(self._open())
        self.hub = self.runtime.hub

    @property
    def runtime(self) -> HubRuntime:
        return next(iter(self.host.hubs.values()))

    @property
    def service(self) -> Any:
        return self.runtime.service

    @property
    def entities(self) -> Any:
        return self.runtime.entities

    @property
    def board(self) -> Any:
        return self.runtime.board

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something; what takes a minute of real time hangs."""
        task = self._loop.create_task(work)
        watch = threading.Timer(_HANGS_SECONDS, self._loop.call_soon_threadsafe, (task.cancel,))
        watch.start()
        try:
            return self._loop.run_until_complete(task)
        except asyncio.CancelledError as error:
            message = f"nothing happens any more; under way: {self.calls.in_flight}"
            raise AssertionError(message) from error
        finally:
            watch.cancel()

    # The host

    async def _open(self) -> None:
        self.calls = Calls()
        store = await SqlStore.open(self._settings.database, lease_seconds=self._settings.lease_seconds, upgrade=True)
        self.beside = await SqlStore.open(self._settings.database, lease_seconds=self._settings.lease_seconds)
        self.host = await Host.on(FaultyStore(store, self.calls), self._settings, lambda: self.clock,
                                  _TIGHT if self.is_tight else None)
        await self.host.start()
        for name in sorted(self.connected):
            self.board.connect(self.benches[name])

    async def _crash(self) -> None:
        """End the host as a kill does: nothing is said, nothing given back; what a thread has begun, it finishes."""
        self.board.stop_offering()  # what the dead host has put off in the loop hands nothing out any more
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.host.store.close()
        await self.beside.close()
        self._tables.expire(self.hub.hub_id)
        for name in self.benches:
            self._put_down(name)
        await self._open()

    def _put_down(self, name: str) -> None:
        """What a bench holds is not its own any more: answers to it come too late."""
        bench = self.benches[name]
        self.losses.update([*(turn.instance for turn in bench.turns.values()), *map(input_of, bench.tasks.values())])
        for turn in bench.turns.values():
            self.turns[turn.token] = None
            self.spent.append(turn)
        self.spent_tasks += bench.tasks.values()
        self.put_down_batches(name)
        bench.turns.clear()
        bench.tasks.clear()

    async def _settle(self, task: asyncio.Task[Any] | None = None) -> None:
        """Wait until nothing happens any more; where something waits for time to pass, let it."""
        quiet = stalled = 0
        while quiet < _QUIET and not self.calls.crashed.is_set():
            calls = self.calls if self.calls.in_flight else self.aside
            if calls.in_flight:
                calls.changed.clear()
                await calls.changed.wait()
                quiet = 0
                continue
            await asyncio.sleep(0)
            if self.runtime.dispatcher._owner.is_idle and (task is None or task.done()):
                quiet, stalled = quiet + 1, 0
            else:
                quiet, stalled = 0, stalled + 1
            if stalled > _STALLED:
                self.clock.advance(_NUDGE_SECONDS)
                stalled = 0

    def close(self) -> None:
        """Stop the host as an operator does, and leave nothing behind."""
        self._run(self.host.stop())
        self._run(self.beside.close())
        self._tables.erase(self.hub.hub_id)
        self._tables.close()
        self._loop.close()

    async def _rest(self) -> None:
        """Come to rest, with a new host where the old one crashed."""
        await self._settle()
        while self.calls.crashed.is_set():
            await self._crash()
            await self._settle()

    # Steps

    def step(self, operation: Operation, effect: Effect, *, uncertain: bool = False,
             cut_short: Sequence[Effect] = ()) -> object:
        """Do something to the host and to the model; where a fault made it uncertain, either may have happened.

        So may what it does when it is `cut_short` between two of its transactions.
        """
        self.failed = True
        self.calls.struck = False
        links = {one.id: one.links for one in self.model.instances.values()}
        answer = self._run(self._perform(operation))
        candidates = [copy.deepcopy(self.model), self.model]
        wanted = effect(candidates[0])
        if not self.calls.struck:
            assert answer == wanted, f"answered {answer!r}, should be {wanted!r}"
            candidates = candidates if uncertain else candidates[:1]
        else:
            candidates += [self._after(part) for part in cut_short]
        self.clock.advance(_NUDGE_SECONDS)  # no two steps are at one time
        if (self.calls.struck or self.is_tight) and not self.calls.crashed.is_set():
            self._run(self._poll())  # of a write in doubt nobody was told; and little memory needs more time
        self._run(self._rest())
        self._compare(candidates)
        self.stale |= {one.id for one in self.model.instances.values() if one.links > links.get(one.id, one.links)}
        return answer

    def _after(self, effect: Effect) -> Model:
        model = copy.deepcopy(self.model)
        effect(model)
        return model

    async def _poll(self) -> None:
        """Let time pass until the host has looked for what others wrote."""
        for _ in range(_POLLS):
            self.clock.advance(_NUDGE_SECONDS)
            for _ in range(3):
                await asyncio.sleep(0)

    async def _perform(self, operation: Operation) -> object:
        task = asyncio.ensure_future(operation())
        await self._settle(task)
        if not task.done():
            return None
        try:
            return task.result()
        except tuple(_REFUSALS) as error:
            return _REFUSALS[type(error)]
        except DurableTaskSqlError:
            if not self.calls.struck:
                raise
            return None

    def step_past_the_owner(self, operation: Callable[[Orchestrations], Awaitable[object]], effect: Effect) -> None:
        """Do something as another process does, which does not wake the owner."""
        instances = Port(self.beside.instances(self.hub), self.aside)
        others = Orchestrations(self.hub, instances, self.clock, self._settings.limits, _Nobody())

        async def go() -> object:
            answer = await operation(others)
            await self._poll()
            return answer

        self.step(go, effect)

    @property
    def may_lose(self) -> bool:
        """Whether nothing is held to be at fault if its worker is lost once more."""
        return max(self.losses.values(), default=0) + (self.calls.fault is not None) < MOST_LOST

    def crash(self) -> None:
        """Kill the host between two steps."""
        self.failed = True
        self._run(self._crash())
        self._run(self._rest())
        self._compare([self.model])

    def arm(self, fault: Fault) -> None:
        """Have a write fail that is still to come."""
        self.calls.fault = fault

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        async def nothing() -> None:
            self.clock.advance(seconds)

        self.step(nothing, lambda _: None)

    def drive_to_rest(self) -> None:
        """Let everything come to its end: without faults, with workers, with time; what still waits is terminated."""
        self.calls.fault = None
        for name in self.benches.keys() - self.connected:
            self.connect(name)
        for _ in range(_ROUNDS):
            for turn in self.held():
                self.answer_turn(turn)
            for item in self.held_tasks():
                self.answer_task(item, fails=False)
            for batch in self.held_batches():
                self.answer_batch(batch, len(batch.operations))
            if not self.holds_any():
                self.advance(LONGEST_DELAY / MICROSECONDS)
            if not self.holds_any():
                idle = self._idle(set())
                assert not idle, f"nobody does anything for {idle}"
                live = [one.id for one in self.model.instances.values() if not one.ended]
                if not live:
                    return
                self._terminate(live[0])
        raise AssertionError("the hub does not come to rest")

    def holds_any(self) -> bool:
        return bool(self.held() or self.held_tasks() or self.held_batches())

    def _terminate(self, instance: str) -> None:
        self.step(lambda: self.service.terminate(instance, "the end", recursive=False),
                  lambda model: model.terminate(instance, "the end", recurse=False))

    def connect(self, name: str) -> None:
        async def connect() -> None:
            self.connected.add(name)
            self.board.connect(self.benches[name])

        self.step(connect, lambda _: None)

    def disconnect(self, name: str) -> None:
        async def disconnect() -> None:
            self.connected.discard(name)
            self._put_down(name)
            self.board.disconnect(self.benches[name])

        self.step(disconnect, lambda _: None)

    # Comparing

    def _compare(self, candidates: list[Model]) -> None:
        snapshot, problems = self._tables.read(self.hub.hub_id), []
        for model in self._settled(candidates, snapshot):
            problems = differences(model, snapshot)
            if not problems:
                self.model = model
                break
        assert not problems, problems
        self._look_at_offers(snapshot)
        self.look_at_batches()
        self.failed = False

    def _settled(self, candidates: list[Model], snapshot: Snapshot) -> Iterator[Model]:
        """Yield what there may be once the host has done what needs no worker.

        With little memory that is not all, and what rests after an answer that was none may be left alone.
        """
        resting = {name for name, until in self.resting.items() if until > self.clock.now()}
        late = {one for one in snapshot.instances if is_live(snapshot, one)} if self.is_tight else set()
        for model in candidates:
            for frozen, left in itertools.product(self.frozen(), [late, late | resting] if resting else [late]):
                settled = copy.deepcopy(model)
                settled.entities.settle(frozen)
                settled.end_pending(self._out() | left)
                yield settled

    def held(self) -> list[OfferedTurn]:
        return [turn for name in sorted(self.connected) for turn in self.benches[name].turns.values()]

    def held_tasks(self) -> list[ActivityItem]:
        return [item for name in sorted(self.connected) for item in self.benches[name].tasks.values()]

    def _out(self) -> set[str]:
        return {turn.instance for turn in self.held()}

    def _look_at_offers(self, snapshot: Snapshot) -> None:
        """Everything that is offered is right, and everything that should be offered is.

        A turn of an execution that was ended or replaced behind its owner's back may be out: its answer will not count.
        """
        now = self.clock.now()
        epochs = dict(self.runtime.dispatcher._memory.epochs)
        if epochs != self._epochs:  # what was out the host has forgotten, but not told in a newer turn if that has to wait
            self.stale |= {turn.instance for turn in self.held() if self.is_tight or turn.token in self.turns}
        self._epochs = epochs
        latest = {turn.instance: turn for turn in sorted(self.held(), key=lambda turn: turn.number)}
        for turn in self.held():
            if latest[turn.instance] is not turn:
                self.turns[turn.token] = None  # taken back: the host has forgotten what it was made from
            if turn.token in self.turns:
                continue
            taken: Taken | str | None = None
            if latest[turn.instance] is turn and is_running(snapshot, turn.instance, turn.execution):
                taken = self.model.take(turn.instance, turn.past, turn.new, now)
                assert not isinstance(taken, str), taken
            self.turns[turn.token] = taken
        resting = {name for name, until in self.resting.items() if until > now}
        if self.connected - {"activities"} and not self.is_tight:  # little memory needs more time
            # Those whose answer was none may wait until nothing else is with their worker.
            idle = self._idle(latest.keys() | resting | (self.losses.keys() if self.holds_any() else set()))
            assert not idle, f"no turn was offered of {idle}"
        if self.connected - {"orchestrations"}:
            offered = {input_of(item) for item in self.held_tasks()}
            needed = {task.input for task in self.model.tasks.values() if not task.optional} - resting
            assert needed <= offered, f"activities were not offered: {needed - offered}"

    def _idle(self, but: Collection[str]) -> list[str]:
        """Those that should run, but for some."""
        return [one.id for one in self.model.instances.values()
                if one.is_runnable(self.clock.now() - MICROSECONDS // 1000) and one.id not in but]
