"""Workers in the simulation: they connect to whichever host is up, run flows, answer late, twice or not at all."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from durabletask_sql.errors import DurableTaskSqlError
from durabletask_sql.model.messages import ActivityRow
from durabletask_sql.ports.work import ActivityItem, EntityItem, Profile, TurnItem
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import iter_events
from simulation.flows import BODIES, World, run_activity, run_operation
from simulation.hosts import GoneError, SimulatedHost
from simulation.loop import outside
from simulation.sdk import Flow, FlowError, ReplayError

_SECONDS = 20.0  # that a worker waits for its answer to be taken


class Connection:
    """One connection of a worker to a host: implements `ports.work.Executor`."""

    profile = Profile()
    turn_slots = 4
    activity_slots = 4
    entity_slots = 3

    def __init__(self, worker: SimulatedWorker, host: SimulatedHost, number: int) -> None:
        self.name = f"{worker.name}-{number}"
        self.worker = worker
        self.host = host
        self.lost = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._outside = outside()

    def offer_turn(self, item: TurnItem) -> None:
        self._offer(self.worker.run_turn, item)

    def offer_activity(self, item: ActivityItem) -> None:
        self._offer(self.worker.run_activity, item)

    def offer_entity(self, item: EntityItem) -> None:
        self._offer(self.worker.run_batch, item)

    def _offer(self, run: Callable[[Connection, Any], Any], item: Any) -> None:
        """Send an item: it arrives a little later, unless the connection breaks first."""
        self._loop.call_later(self.worker.chance.uniform(0.0, 0.01), self._arrive, run, item, context=self._outside)

    def _arrive(self, run: Callable[[Connection, Any], Any], item: Any) -> None:
        if not self.lost.is_set():
            self.worker.begin(run(self, item))


class SimulatedWorker:
    """One worker process, which is started anew whenever it dies."""

    def __init__(self, name: str, hosts: Sequence[SimulatedHost], world: World, chance: random.Random,
                 told: Callable[[str, str], None], answered: Callable[[ActivityRow], None], now: Callable[[], int]) -> None:
        """`hosts` are those there are at any time; `told` hears of problems, `answered` of acknowledged results.

        `now` is the database's time.
        """
        self.name = name
        self.chance = chance
        self.connection: Connection | None = None
        self._hosts = hosts
        self._world = world
        self._told = told
        self._answered = answered
        self._now = now
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self) -> None:
        """Stay connected to some host."""
        number = 0
        while True:
            up = [host for host in self._hosts if host.is_up]
            if not up:
                await asyncio.sleep(0.5)
                continue
            number += 1
            host = min(up, key=lambda one: (one.workers, self.chance.random()))  # each host has workers of its own
            connection = self.connection = Connection(self, host, number)
            host.workers += 1
            try:
                await host.call(lambda hub, one=connection: _at_once(hub.board.connect, one), _SECONDS)
                await _first(self.chance.uniform(60.0, 180.0), host.gone.wait(), connection.lost.wait())
            except GoneError:
                pass
            host.workers -= 1
            connection.lost.set()
            if host.is_up:
                host.process.spawn(_at_once(host.runtime.board.disconnect, connection))
            await asyncio.sleep(self.chance.uniform(0.0, 2.0))

    def disconnect(self) -> None:
        """Lose the connection; what is being worked on goes on, and its answer comes too late or from elsewhere."""
        if self.connection is not None:
            self.connection.lost.set()

    def crash(self) -> None:
        """End as SIGKILL does, and begin anew: what was being worked on is forgotten."""
        self.disconnect()
        for task in self._tasks:
            task.cancel()

    # Work

    async def run_turn(self, connection: Connection, item: TurnItem) -> None:
        await asyncio.sleep(self.chance.uniform(0.0, 0.05))
        if self.chance.random() < 0.01:
            await self._say(connection, lambda hub: hub.board.abandon_turn(item.token))
            return
        self._look_at_timers(item)
        flow = Flow(BODIES, item.key.instance_id, item.execution_id)
        try:
            actions = flow.run(item.past, item.new_events)
        except ReplayError as error:  # of a turn that will not count, it may be: it has run ahead of a commit
            actions = [pb.OrchestratorAction(id=999, completeOrchestration=pb.CompleteOrchestrationAction(
                orchestrationStatus=pb.ORCHESTRATION_STATUS_FAILED,
                failureDetails=pb.TaskFailureDetails(errorType="ReplayError", errorMessage=str(error))))]
        answer = pb.OrchestratorResponse(instanceId=item.key.instance_id, completionToken=item.token, actions=actions)
        await self._say(connection, lambda hub: hub.board.complete_turn(answer))

    def _look_at_timers(self, item: TurnItem) -> None:
        """No timer comes before its time, give or take how well a host knows it."""
        for event in iter_events(item.new_events):
            if event.HasField("timerFired"):
                early = event.timerFired.fireAt.ToMicroseconds() - self._now()
                if early > 500_000:
                    self._told("timer", f"{item.key.instance_id}: a timer fires {early / 1e6:.1f} s early")

    async def run_activity(self, connection: Connection, item: ActivityItem) -> None:
        asked = pb.HistoryEvent.FromString(item.row.event).taskScheduled
        seconds = self.chance.uniform(0.0, 0.2) if self.chance.random() < 0.9 else self.chance.uniform(1.0, 20.0)
        await asyncio.sleep(seconds)
        if self.chance.random() < 0.01:
            await self._say(connection, lambda hub: hub.board.abandon_activity(item.token))
            return
        row = item.row
        answer = pb.ActivityResponse(instanceId=row.key.instance_id, taskId=row.task_id, completionToken=item.token)
        try:
            answer.result.value = json.dumps(run_activity(self._world, row.name, json.loads(asked.input.value)))
        except FlowError as error:
            answer.failureDetails.errorType, answer.failureDetails.errorMessage = "FlowError", str(error)
        if await self._say(connection, lambda hub: hub.board.complete_activity(answer)):
            self._answered(row)
        if self.chance.random() < 0.1:
            await self._say(connection, lambda hub: hub.board.complete_activity(answer))

    async def run_batch(self, connection: Connection, item: EntityItem) -> None:
        await asyncio.sleep(self.chance.uniform(0.0, 0.05))
        state, results = item.state, []
        for event in iter_events(item.operations):
            asked = event.entityOperationCalled if event.HasField("entityOperationCalled") else event.entityOperationSignaled
            state, result = run_operation(state, asked.operation, json.loads(asked.input.value or "0"))
            results.append(pb.OperationResult(success=pb.OperationResultSuccess(result={"value": json.dumps(result)})))
        answer = pb.EntityBatchResult(results=results, completionToken=item.token)
        if state is not None:
            answer.entityState.value = state
        await self._say(connection, lambda hub: hub.board.complete_entity(answer))

    async def _say(self, connection: Connection, work: Callable[[Any], Any]) -> bool:
        """Give an answer where the work came from, or else where one is connected now; it may get lost.

        Return whether the first try was acknowledged.
        """
        for attempt in range(3):
            try:
                await connection.host.call(work, _SECONDS)
            except GoneError:
                if self.connection is None or self.connection is connection:
                    return False
                connection = self.connection
            except DurableTaskSqlError:
                await asyncio.sleep(0.2)
            else:
                return attempt == 0
        return False


async def _at_once(function: Callable[[Any], None], argument: Any) -> None:
    function(argument)


async def _first(seconds: float, *events: Any) -> None:
    tasks = [asyncio.ensure_future(event) for event in events]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
