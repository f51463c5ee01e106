"""The work board of one task hub: hands ready work to connected executors and takes their answers.

Implements `ports.work.WorkBoard`. What may run is memory's decision, what an answer means is `turn`'s, what is durable
is the owner loop's; this module only matches work with free slots, oldest first.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

from durabletask_sql.clock import Clock
from durabletask_sql.dispatch.executors import OpenActivity, OpenTurn, Seat, Seats
from durabletask_sql.dispatch.results import activity_outcome, parse_activity_token, refusal_answer
from durabletask_sql.errors import InvalidCompletionError
from durabletask_sql.ids import new_execution_id, partition_of
from durabletask_sql.model.checkpoints import ActivityCompletion, Discard, Item, Outcome, OutcomeKind, Quarantine
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import ActivityRow
from durabletask_sql.partitions.instance import InstanceMemory
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.partitions.speculation import Speculation
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.work import ActivityItem, Executor, TurnItem
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.turn.apply import Turn, apply, end_pending
from durabletask_sql.turn.intake import TurnLimits, take
from durabletask_sql.turn.limits import bounded_result, within_limits
from durabletask_sql.turn.rewind import shown

_log = logging.getLogger(__name__)

ACTIVITY_BUFFER = 200
_FIRST_DELAY_SECONDS = 1.0
_LAST_DELAY_SECONDS = 60.0
_REPORT_ABANDONS = 100
MAX_FAILED_DELIVERIES = 5


@dataclass(frozen=True, slots=True)
class BoardPorts:
    """What the board needs of its host: submitting items and finding an activity task by its claim."""

    submit: Callable[[Item, int | None], "asyncio.Future[Outcome]"]
    find_activity: Callable[[int, int, int], Awaitable[ActivityRow | None]]
    wants_work: Callable[[], None]


class Board:
    """Executors, ready activity tasks, and the turns and tasks that are out."""

    def __init__(self, hub: TaskHub, host_id: int, memory: Memory, speculation: Speculation, clock: Clock,
                 ports: BoardPorts, limits: TurnLimits) -> None:
        """Begin with nobody connected and nothing to do."""
        self._hub = hub
        self._host_id = host_id
        self._memory = memory
        self._speculation = speculation
        self._clock = clock
        self._ports = ports
        self._limits = limits
        self._seats = Seats()
        self._tasks: deque[ActivityRow] = deque()
        self._abandoned: dict[int, int] = {}
        self._completing: set[int] = set()
        self._in_flight: dict[int, asyncio.Future[Outcome]] = {}
        self._dispatches = 0
        self._offering = True

    # Work

    def add_activities(self, rows: Iterable[ActivityRow]) -> None:
        """Take in activity tasks that this host has claimed."""
        self._tasks.extend(rows)
        self.pump()

    def activity_room(self) -> int:
        """Return how many more activity tasks this host should claim: its free slots plus one batch."""
        free = self._seats.free_activities()
        return max(0, free + ACTIVITY_BUFFER - len(self._tasks)) if free or self._seats.activities else 0

    def pump(self) -> None:
        """Hand out whatever can be handed out now."""
        if not self._offering:
            return
        while self._memory.has_ready() and (seat := self._seats.for_turn()) is not None:
            mem = self._memory.next_ready()
            if mem is None:
                break
            self._begin_turn(mem, seat)
        if self._memory.filling.has_work():
            self._ports.wants_work()
        while self._tasks and (seat := self._seats.for_activity()) is not None:
            self._begin_activity(self._tasks.popleft(), seat)

    def _begin_turn(self, mem: InstanceMemory, seat: Seat) -> None:
        row = mem.row
        if row is None:
            self._discard(mem, tuple(queued.seq for queued in mem.rows), tuple(timer.seq for timer in mem.timers))
            return
        intake = take(row, mem.runnable(), mem.due(), self._clock.now(), self._limits)
        if not intake.runs:
            if intake.discarded or intake.discarded_timers:
                self._discard(mem, intake.discarded, intake.discarded_timers)
            else:
                self._memory.waits_for_start(mem)
                self._ports.wants_work()
            return
        mem.turn = intake
        if intake.ends_pending:
            self._ports.submit(end_pending(Turn(row, (), intake), self._clock.now(), self._hub.partition_count), None)
            return
        self._dispatches += 1
        token = f"turn:{self._hub.hub_id}:{self._host_id:x}:{self._dispatches}"
        self._seats.open_turn(OpenTurn(token, mem, intake, seat))
        seat.executor.offer_turn(TurnItem(token, mem.key, row.execution_id, row.name, row.version,
                                          shown(row, mem.history), intake.new_events, row.trace))

    def _discard(self, mem: InstanceMemory, seqs: tuple[int, ...], timers: tuple[int, ...]) -> None:
        """Delete rows that no turn will ever take; nothing else of the instance runs until that is done."""
        mem.blocked = True
        done = self._ports.submit(Discard(mem.key, seqs, timers), None)
        done.add_done_callback(lambda _: self._unblock(mem))

    def _begin_activity(self, row: ActivityRow, seat: Seat) -> None:
        self._dispatches += 1
        token = f"activity:{self._hub.hub_id}:{row.key.partition}:{row.seq}:{row.token:x}:{self._dispatches}"
        self._seats.open_activity(OpenActivity(token, row, seat))
        seat.executor.offer_activity(ActivityItem(token, row))

    # Executors

    def connect(self, executor: Executor) -> None:
        """Begin to offer work to this executor."""
        self._seats.add(executor)
        self._ports.wants_work()
        self.pump()

    def disconnect(self, executor: Executor) -> None:
        """Stop offering, and put everything that it still has back into the queue, at once and in front."""
        seat = self._seats.remove(executor)
        if seat is None:
            return
        for turn in seat.turns.values():
            if turn.is_current:
                self._memory.put_back(turn.mem, first=True)
        self._tasks.extendleft(activity.row for activity in reversed(seat.activities.values())
                               if activity.row.seq not in self._completing)
        self.pump()

    def stop_offering(self) -> None:
        """Hand out nothing more: the host is draining."""
        self._offering = False

    @property
    def is_idle(self) -> bool:
        """Whether no executor holds anything."""
        return self._seats.is_empty

    @property
    def outstanding(self) -> int:
        """How many items are out at executors."""
        return len(self._seats.turns) + len(self._seats.activities)

    # Turns come back

    async def complete_turn(self, token: str, answer: pb.OrchestratorResponse) -> None:
        """Commit the outcome of a turn; return when it is durable."""
        instance_id = answer.instanceId
        turn = self._seats.close_turn(token or self._seats.turn_token(self._key(instance_id)))
        if turn is None or not turn.is_current or turn.mem.row is None:
            _log.info("the answer to a turn of instance %r came too late or twice and was dropped (token %r)",
                      instance_id, token)
            self.pump()
            return
        mem = turn.mem
        answer = within_limits(turn.mem.row, answer, self._limits.payload_bytes)
        try:
            checkpoint = apply(Turn(turn.mem.row, tuple(mem.history), turn.intake), answer.actions, answer,
                               self._clock.now(), new_execution_id, self._hub.partition_count)
        except InvalidCompletionError as error:
            await self._fail_delivery(turn, str(error))
            return
        if not await self._is_settled(turn):
            self.pump()
            return
        done = self._ports.submit(replace(checkpoint, consumed=self._real(turn)), None)
        self.pump()
        outcome = await done
        if outcome.kind is OutcomeKind.LOST:
            _log.info("a turn of instance %r was lost and runs again: %s", instance_id, outcome.cause)

    async def _is_settled(self, turn: OpenTurn) -> bool:
        """Wait for the commits of the messages that a turn ran on ahead of them; False: it was taken back."""
        for seq in turn.intake.consumed:
            commit = self._in_flight.get(seq)
            if commit is not None:
                await asyncio.shield(commit)
        return turn.is_current

    @staticmethod
    def _real(turn: OpenTurn) -> tuple[int, ...]:
        """Return the sequences that a turn consumes, those that it saw ahead of their commit included."""
        settled = turn.mem.settled
        return tuple(settled.get(seq, seq) for seq in turn.intake.consumed) if settled else turn.intake.consumed

    async def _fail_delivery(self, turn: OpenTurn, cause: str) -> None:
        """An answer that cannot be carried out: try again a few times, then set the messages aside with the cause."""
        mem = turn.mem
        if not await self._is_settled(turn):
            return
        mem.failures += 1
        _log.error("instance %r: a worker's answer cannot be carried out (%d of %d): %s", mem.key.instance_id,
                   mem.failures, MAX_FAILED_DELIVERIES, cause)
        if mem.failures < MAX_FAILED_DELIVERIES:
            self._delay(mem, mem.failures)
            return
        mem.failures = 0
        rows = turn.intake
        await self._ports.submit(Quarantine(mem.key, cause, self._real(turn), rows.consumed_timers), None)

    async def abandon_turn(self, token: str) -> None:
        """Take a turn back; it is offered again after a delay that grows with each abandon in a row."""
        turn = self._seats.close_turn(token)
        if turn is not None and turn.is_current:
            self._abandon(turn.mem, "a worker abandoned its turn")
        self.pump()

    def refuse_turn(self, token: str, cause: str) -> None:
        """Take a turn back that the executor cannot be sent; it is offered again, with growing delays."""
        turn = self._seats.close_turn(token)
        if turn is not None and turn.is_current:
            _log.error("instance %r: a turn cannot be sent to its worker: %s", turn.mem.key.instance_id, cause)
            self._abandon(turn.mem, cause)

    def _abandon(self, mem: InstanceMemory, cause: str) -> None:
        mem.abandons += 1
        if mem.abandons % _REPORT_ABANDONS == 0:
            _log.warning("instance %r: %d turns in a row were given back: %s", mem.key.instance_id, mem.abandons, cause)
        self._delay(mem, mem.abandons)

    def _delay(self, mem: InstanceMemory, times: int) -> None:
        mem.blocked = True
        self._memory.put_back(mem)
        asyncio.get_running_loop().call_later(delay_seconds(times), self._unblock, mem)

    def _unblock(self, mem: InstanceMemory) -> None:
        if self._memory.find(mem.key) is mem:
            self._memory.unblock(mem)
            self.pump()

    # Activity tasks come back

    async def complete_activity(self, token: str, answer: pb.ActivityResponse) -> None:
        """Commit the result of an activity task; return when it is durable."""
        token = token or self._seats.activity_token(answer.instanceId, answer.taskId)
        opened = self._seats.close_activity(token)
        row = opened.row if opened is not None else await self._find_activity(token)
        if row is None or row.seq in self._completing:
            _log.info("the result of activity %d of instance %r came too late or twice and was dropped (token %r)",
                      answer.taskId, answer.instanceId, token)
            self.pump()
            return
        answer = bounded_result(row.name, answer, self._limits.payload_bytes)
        self._completing.add(row.seq)
        if opened is None:
            self._tasks = deque(task for task in self._tasks if task.seq != row.seq)
        try:
            message = activity_outcome(row, answer, self._clock.now()) if self._is_awaited(row) else None
            outcome = await self._submit_result(ActivityCompletion(row.key, row.seq, row.token, message))
        finally:
            self._completing.discard(row.seq)
            self._abandoned.pop(row.seq, None)
        if outcome.kind is OutcomeKind.LOST:
            _log.info("the result of activity %d of instance %r counts no more: %s", row.task_id,
                      row.key.instance_id, outcome.cause)

    async def _submit_result(self, item: ActivityCompletion) -> Outcome:
        """Submit a result; the turn that it triggers may run at once, its commit waits for this one (I3)."""
        seq = self._speculation.enter(item.message) if item.message is not None else None
        done = self._ports.submit(item, seq)
        if seq is not None:
            self._in_flight[seq] = done
            done.add_done_callback(lambda _: self._in_flight.pop(seq, None))
        self.pump()
        return await done

    def _is_awaited(self, row: ActivityRow) -> bool:
        """Whether, for all that is in memory, the execution that scheduled a task still runs."""
        mem = self._memory.find(row.key)
        if mem is None or not mem.known or mem.stale or mem.row is None:
            return True
        return mem.row.execution_id == row.execution_id and not mem.row.status.is_terminal

    async def _find_activity(self, token: str) -> ActivityRow | None:
        """Find the task of a token that this board did not hand out, or has taken back: its claim may still hold."""
        claim = parse_activity_token(token, self._hub.hub_id)
        return await self._ports.find_activity(*claim) if claim is not None else None

    async def abandon_activity(self, token: str) -> None:
        """Take an activity task back; it is offered again after a delay that grows with each abandon in a row."""
        activity = self._seats.close_activity(token)
        if activity is not None:
            times = self._abandoned[activity.row.seq] = self._abandoned.get(activity.row.seq, 0) + 1
            asyncio.get_running_loop().call_later(delay_seconds(times), self.add_activities, (activity.row,))
        self.pump()

    async def refuse_activity(self, token: str, cause: str) -> None:
        """Fail an activity task that the executor cannot be sent."""
        activity = self._seats.activities.get(token)
        if activity is not None:
            await self.complete_activity(token, refusal_answer(activity.row, cause))

    def _key(self, instance_id: str) -> InstanceKey:
        return InstanceKey(partition_of(instance_id, self._hub.partition_count), instance_id)


def delay_seconds(times: int) -> float:
    """Return how long an item waits after having been given back so many times in a row: 1 s doubling to 60 s."""
    return min(_LAST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2.0 ** min(times - 1, 10))
