"""The work board of one task hub: where executors connect and answer. Implements `ports.work.WorkBoard`.

It only brings together turns, activities and entities: each kind of work has a module of its own that matches it with
executors that take it and have room, oldest first.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Iterable, Sequence

from durabletask_sql.clock import Clock
from durabletask_sql.dispatch.activities import Activities
from durabletask_sql.dispatch.entities import Entities, EntitySeats
from durabletask_sql.dispatch.executors import first_for_suspects, roomiest
from durabletask_sql.dispatch.failures import report_worker
from durabletask_sql.dispatch.ports import BoardPorts
from durabletask_sql.dispatch.turns import Turns, TurnSeats
from durabletask_sql.dispatch.unserved import WorkClass
from durabletask_sql.model.checkpoints import OrchestrationStart, Outcome
from durabletask_sql.model.messages import ActivityRow
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.partitions.speculation import Speculation
from durabletask_sql.partitions.suspects import Delivery, Standing
from durabletask_sql.ports.claims import ActivityClaim, ActivityRoom
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.work import Executor, WorkKind
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.turn.intake import TurnLimits

_log = logging.getLogger(__name__)


class Board:
    """Executors, ready work, and the work that is out."""

    def __init__(self, hub: TaskHub, host_id: int, memory: Memory, speculation: Speculation, seats: TurnSeats,
                 entity_seats: EntitySeats, clock: Clock, ports: BoardPorts, limits: TurnLimits) -> None:
        """Begin with nobody connected and nothing to do; the seats sort the memory's ready instances and entities."""
        self._memory = memory
        self._ports = ports
        self._speculation = speculation
        self._suspicion = suspicion = seats.suspicion
        self._standings: dict[Executor, Standing] = {}
        self._turns = Turns(hub, host_id, memory, seats, clock, ports, limits)
        self._activities = Activities(hub, speculation, suspicion, clock, ports, limits)
        self._entities = Entities(hub, host_id, memory, entity_seats, clock, ports, limits.payload_bytes)
        self._offering = True
        self._will_pump = False
        self._answers: set[asyncio.Future[object]] = set()

    # Work

    def add_activities(self, rows: Iterable[ActivityRow]) -> None:
        """Take in activity tasks that this host has claimed."""
        self._activities.add(rows)
        self.pump_soon()

    async def start(self, start: OrchestrationStart) -> Outcome:
        """Have an orchestration created; its first turn may run at once."""
        child = start.child
        ahead = self._ports.may_run_ahead() and self.takes_turn(child.row.name, child.row.version)
        done = self._ports.submit_ahead(start, self._speculation.begin(child) if ahead else None)
        self.pump()
        return await asyncio.shield(done)  # its turn waits for it even if its client goes away

    def forget_activities(self) -> None:
        """Hand out none of the activity tasks that wait here: they were deleted."""
        self._activities.take_waiting()

    def activity_room(self, classes: Iterable[tuple[str, str | None]], *, backlog: bool) -> ActivityRoom:
        """Return how many new activity tasks of these names and versions are born claimed by this host.

        `backlog`: tasks may wait that nobody has claimed.
        """
        return self._activities.room(classes, backlog=backlog) if self._offering else ActivityRoom()

    def activity_claims(self) -> tuple[ActivityClaim, ...]:
        """Return which unclaimed activity tasks this host should claim now."""
        return self._activities.claims() if self._offering else ()

    def takes_turn(self, name: str, version: str | None) -> bool:
        """Tell whether somebody connected takes this orchestration."""
        return bool(self._turns.seats.takers(name, version))

    def takes_activity(self, name: str, version: str | None) -> bool:
        """Tell whether somebody connected takes this activity."""
        return bool(self._activities.seats.takers(name, version))

    def takes_entity(self, name: str) -> bool:
        """Tell whether somebody connected takes entities of this name."""
        return bool(self._entities.seats.takers(name, None))

    def take_surplus(self) -> list[ActivityRow]:
        """Remove and return claimed activity tasks that others should have: all of them once this host drains."""
        return self._activities.take_surplus() if self._offering else self._activities.take_waiting()

    def unserved(self) -> Counter[WorkClass]:
        """Count what waits in memory and nobody takes."""
        return (Counter(WorkClass(WorkKind.ORCHESTRATION, *found) for found in self._turns.unserved())
                + Counter(WorkClass(WorkKind.ACTIVITY, *found) for found in self._activities.unserved())
                + Counter(WorkClass(WorkKind.ENTITY, *found) for found in self._entities.unserved()))

    def pump(self) -> None:
        """Hand out whatever can be handed out now."""
        if self._offering and self._ports.is_alive():
            if self._suspicion.aroused:
                for kind in (self._turns, self._activities, self._entities):
                    kind.hand_out(first_for_suspects)
            self._turns.pump()
            self._activities.hand_out(roomiest)
            self._entities.pump()

    def pump_soon(self) -> None:
        """Hand out what can be once those are answered who wait for what was just committed: workers' threads do."""
        if not self._will_pump:
            self._will_pump = True
            asyncio.get_running_loop().call_soon(self._pump_now)

    def _pump_now(self) -> None:
        self._will_pump = False
        self.pump()

    def stop_offering(self) -> None:
        """Hand out nothing more: the host is draining."""
        self._offering = False

    @property
    def is_idle(self) -> bool:
        """Whether no executor holds anything."""
        return not self.outstanding

    @property
    def outstanding(self) -> int:
        """How many items are out at executors."""
        return len(self._turns.seats) + len(self._activities.seats) + len(self._entities.seats)

    # Executors

    def connect(self, executor: Executor) -> None:
        """Begin to offer work to this executor."""
        standing = self._standings[executor] = Standing(executor.profile)
        takes_turns = self._turns.seats.add(executor, executor.turn_slots, standing)
        takes_activities = self._activities.seats.add(executor, executor.activity_slots, standing)
        if takes_turns:
            self._memory.ready.sort_again()
        if takes_activities:
            self._activities.sort_again()
        takes_entities = self._entities.seats.add(executor, executor.entity_slots, standing)
        if takes_entities:
            self._memory.entities.sort_again()
        if takes_turns or takes_activities or takes_entities:
            self._ports.found_takers()
        self._ports.wants_work()
        self.pump()

    def disconnect(self, executor: Executor, *, lost: bool = True) -> None:
        """Stop offering, and put everything that it still has back into the queue, at once and in front."""
        turns, turns_changed = self._turns.seats.remove(executor)
        activities, activities_changed = self._activities.seats.remove(executor)
        batches, batches_changed = self._entities.seats.remove(executor)
        if turns_changed:
            self._memory.ready.sort_again()
        if activities_changed:
            self._activities.sort_again()
        if batches_changed:
            self._memory.entities.sort_again()
        standing = self._standings.pop(executor, Standing(executor.profile))
        marked = self._marked(executor, standing, [*turns, *activities, *batches]) if lost else frozenset()
        self._turns.take_back(turns, marked)
        self._activities.take_back(activities, marked)
        self._entities.take_back(batches, marked)
        self._ports.wants_work()  # what could not be read afresh while it was out is read now
        self.pump()

    def _marked(self, executor: Executor, standing: Standing, held: Sequence[Delivery]) -> frozenset[Delivery]:
        """Return which of the items that a lost executor held have failed once more."""
        marked = frozenset(self._suspicion.marked(standing, held))
        if held:
            _log.warning("worker %r was lost with %d items, of which %d are marked", executor.name, len(held), len(marked))
        if held and not marked:
            report_worker(standing, executor.name, "its connection was lost")
        return marked

    # Answers

    async def complete_turn(self, answer: pb.OrchestratorResponse) -> None:
        """Commit the outcome of a turn; return when it is durable."""
        await self._carry_out(self._turns.complete(answer))

    async def complete_activity(self, answer: pb.ActivityResponse) -> None:
        """Commit the result of an activity task; return when it is durable."""
        await self._carry_out(self._activities.complete(answer))

    async def complete_entity(self, answer: pb.EntityBatchResult) -> None:
        """Commit the outcome of an entity's batch; return when it is durable."""
        await self._carry_out(self._entities.complete(answer))

    async def _carry_out(self, rest: Awaitable[object] | None) -> None:
        """Wait for the rest of an answer. It goes on to its end even if the worker that waits for it goes away."""
        if rest is None:
            return
        task = asyncio.ensure_future(rest)
        if task is not rest:
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)
        await asyncio.shield(task)

    async def abandon_turn(self, token: str) -> None:
        """Take a turn back; it is offered again after a delay that grows with each abandon in a row."""
        self._turns.abandon(token)
        self._ports.wants_work()
        self.pump()

    async def abandon_activity(self, token: str) -> None:
        """Take an activity task back; likewise."""
        self._activities.abandon(token)
        self.pump()

    async def abandon_entity(self, token: str) -> None:
        """Take a batch back; likewise."""
        self._entities.abandon(token)
        self._ports.wants_work()
        self.pump()

    def past_of_turn(self, instance_id: str, execution_id: str | None) -> tuple[bytes, ...] | None:
        """Return the history (framed) that the turn which is out was made from; None when none is out."""
        return self._turns.past_of(instance_id, execution_id)
