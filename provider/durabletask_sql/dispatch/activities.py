"""Activity tasks that this host has claimed: handing them out, taking their results, giving them back."""

import asyncio
import logging
from collections.abc import Awaitable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from durabletask_sql.clock import Clock
from durabletask_sql.dispatch.claiming import buffer_for, claims_for, room_for
from durabletask_sql.dispatch.delays import REPORT_ABANDONS, delay_seconds
from durabletask_sql.dispatch.executors import Seat, SeatFor, Seats, Takers, prefer_another
from durabletask_sql.dispatch.failures import cause_of, lost_cause, report_worker
from durabletask_sql.dispatch.ports import BoardPorts, Carefully
from durabletask_sql.dispatch.results import activity_outcome, parse_activity_token
from durabletask_sql.errors import UnavailableError
from durabletask_sql.model.checkpoints import ActivityCompletion, Blame, Outcome, OutcomeKind, Quarantine
from durabletask_sql.model.deliveries import Mark, RowKey
from durabletask_sql.model.messages import ActivityRow
from durabletask_sql.model.quarantine import Source
from durabletask_sql.partitions.lanes import Lane, Lanes
from durabletask_sql.partitions.speculation import Speculation
from durabletask_sql.partitions.suspects import (
    COUNTED_FAILURES,
    Standing,
    Suspicion,
    after_refusal,
    is_accused,
    is_out,
    is_suspect,
)
from durabletask_sql.ports.claims import ActivityClaim, ActivityRoom
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.work import ActivityItem, Executor, Needs, WorkKind
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.assembly import HEAD_BYTES
from durabletask_sql.turn.intake import TurnLimits
from durabletask_sql.turn.limits import bounded_result

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.25
_SMALL_BYTES = 1024 * 1024  # any executor reads a message of this size

Claim = tuple[int, int]  # sequence, token


@dataclass(slots=True, eq=False)
class Task:
    """An activity task in memory. `lane` and `place` are those of `Lanes`."""

    row: ActivityRow
    lane: Lane | None = None
    place: int = 0
    needs: Needs | None = None
    abandons: int = 0
    abandoned_by: Executor | None = None
    failures: int = 0
    lost_by: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What an answer without a token names."""
        return self.row.key.instance_id, self.row.task_id

    @property
    def claim(self) -> Claim:
        """What identifies this claim of the task; a host may come to have more than one of them."""
        return self.row.seq, self.row.token

    @property
    def is_accused(self) -> bool:
        """Whether it is a suspect that was lost as one. What has come back with a bad answer has run: no doubt of that."""
        return is_accused(self.row.failed) and not self.failures


@dataclass(frozen=True, slots=True, eq=False)
class OpenActivity:
    """An activity task that an executor holds."""

    token: str
    key: tuple[str, int]
    task: Task
    executor: Executor
    standing: Standing
    is_suspect: bool = False

    @property
    def item(self) -> int:
        """What identifies the item, whatever delivery of it."""
        return self.task.row.seq

    @property
    def rows(self) -> tuple[RowKey, ...]:
        """Which rows it consists of."""
        return (RowKey(Source.TASK, self.task.row.key.partition, self.task.row.seq),)


class Activities:
    """The activity tasks of one task hub that wait here or are out."""

    def __init__(self, hub: TaskHub, speculation: Speculation, suspicion: Suspicion, clock: Clock, ports: BoardPorts,
                 limits: TurnLimits) -> None:
        """Begin with nobody connected and nothing to do."""
        self._hub = hub
        self._speculation = speculation
        self._clock = clock
        self._ports = ports
        self._limits = limits
        self.seats: Seats[OpenActivity] = Seats(WorkKind.ACTIVITY, suspicion)
        self._lanes: Lanes[Task, Takers[OpenActivity]] = Lanes(self._group_of)
        self._waiting: dict[int, Task] = {}  # by sequence: of two claims of a task the later one
        self._completing: dict[Claim, asyncio.Future[Outcome]] = {}
        self._seen: frozenset[int] = frozenset()
        self._ran = 0  # tasks between the last two looks
        self._ran_before = 0
        self._silenced: dict[tuple[str, int], list[Task]] = {}
        self._dispatches = 0

    def _group_of(self, task: Task) -> Takers[OpenActivity]:
        row = task.row
        takers = (self.seats.takers(row.name, row.version) if task.needs is None else
                  self.seats.takers_of(row.name, row.version, task.needs))
        return self.seats.suspects(takers, accused=task.is_accused) if is_suspect(row.failed) else takers

    # Out

    def add(self, rows: Iterable[ActivityRow]) -> None:
        """Take in activity tasks that this host has claimed, perhaps anew after it had lost an older claim."""
        for row in rows:
            self._unqueue(row.seq)
            if is_out(row.failed):
                self._set_aside(row, None, lost_cause(row.failed), row.failed)
                continue
            size = len(row.event) + HEAD_BYTES
            self._queue(Task(row, needs=Needs(size, size) if size > _SMALL_BYTES else None))

    def _set_aside(self, row: ActivityRow, worker: str | None, cause: str, attempts: int) -> None:
        """Set aside what was lost too often with its workers or hosts, or failed too often here."""
        _log.error("activity %d (%r) of instance %r is set aside: %s", row.task_id, row.name, row.key.instance_id, cause)
        self.seats.suspicion.forget(row.seq)
        self._ports.submit(Quarantine(row.key, cause, activity=(row.seq, row.token), blame=Blame(
            row.execution_id, worker=worker, attempts=attempts)), None)

    def _queue(self, task: Task, *, first: bool = False) -> None:
        self._waiting[task.row.seq] = task
        self._lanes.add(task, first=first)

    def room(self, classes: Iterable[tuple[str, str | None]], *, backlog: bool) -> ActivityRoom:
        """Return how many new tasks of these names and versions are born claimed by this host.

        `backlog`: tasks may wait that nobody has claimed.
        """
        peers = self._ports.peers()
        buffer = 0 if backlog and peers else buffer_for(self._ran, peers)
        return room_for(self.seats, self._lanes.counts(), classes, buffer)

    def claims(self) -> tuple[ActivityClaim, ...]:
        """Return which unclaimed tasks this host should claim now."""
        return claims_for(self.seats, self._lanes.counts(), buffer_for(self._ran, self._ports.peers()))

    def take_surplus(self) -> list[ActivityRow]:
        """Remove and return the tasks that others should have, of those that waited here when this was called last.

        Those that have no taker here; beside other hosts also those that no slot was free for. A worker that comes
        back soon finds its tasks where they were, and what it finished meanwhile still counts.
        """
        waiting = self._lanes.waiting() if self._ports.peers() else self._lanes.waiting_for(self.seats.nobody)
        waits = {task.row.seq for task in waiting if task.needs is None or not task.needs.echo}
        surplus = [self._waiting[seq] for seq in waits & self._seen]
        self._ran, self._ran_before = self._dispatches - self._ran_before, self._dispatches
        self._seen = frozenset(waits - self._seen)
        return self._take(surplus)

    def take_waiting(self) -> list[ActivityRow]:
        """Remove and return all tasks that wait here."""
        return self._take(list(self._waiting.values()))

    def _take(self, tasks: list[Task]) -> list[ActivityRow]:
        for task in tasks:
            self._unqueue(task.row.seq)
        return [task.row for task in tasks]

    def unserved(self) -> Iterable[tuple[str, str | None, bool]]:
        """Return name, version and whether it is its size, of each task that waits here and nobody takes."""
        return ((task.row.name, task.row.version, task.needs is not None)
                for task in self._lanes.waiting_for(self.seats.nobody) if task.needs is None or not task.needs.echo)

    def hand_out(self, seat_for: SeatFor[OpenActivity]) -> None:
        """Hand out what there is an executor for."""
        while (found := self._lanes.take(seat_for)) is not None:
            self._begin(*found)

    def _begin(self, task: Task, seat: Seat[OpenActivity]) -> None:
        key = task.key
        if not seat.profile.echoes_tokens and self.seats.is_open_without_token(key):
            self._wait_for_answer(task, key)
            return
        row = task.row
        del self._waiting[row.seq]
        if task.abandons:
            seat = prefer_another(self._group_of(task), seat, task.abandoned_by)
        self._dispatches += 1
        token = f"activity:{self._hub.hub_id}:{row.key.partition}:{row.seq}:{row.token:x}:{self._dispatches}"
        opened = OpenActivity(token, key, task, seat.executor, seat.standing, is_suspect(row.failed))
        self.seats.open(seat, opened)
        if self.seats.suspicion.careful:
            self._ports.deliver(Carefully(opened, lambda: self.seats.find(token) is opened,
                                          lambda: self._offer(opened), lambda: self.seats.close(token)))
        else:
            self._offer(opened)

    def _offer(self, opened: OpenActivity) -> None:
        try:
            opened.executor.offer_activity(ActivityItem(opened.token, opened.task.row))
        except Exception as error:
            self._close(opened.token)
            self._refuse(opened.task, None, error)

    def _wait_for_answer(self, task: Task, key: tuple[str, int]) -> None:
        """Another task of the same key is out where answers carry no token: this one may go elsewhere, or waits."""
        task.needs = replace(task.needs or Needs(), echo=True)
        self._silenced.setdefault(key, []).append(task)
        self._lanes.add(task, first=True)

    # Back

    def take_back(self, activities: Sequence[OpenActivity], marked: Collection[object]) -> None:
        """Put the tasks of an executor that went away in front of all others, those marked as suspects behind."""
        for activity in reversed(activities):
            self._forget_silence(activity.key)
            task = activity.task
            if task.claim in self._completing or task.row.seq in self._waiting:
                continue
            if activity in marked:
                self._mark(task, activity.executor.name)
            if is_out(task.row.failed):
                self._set_aside(task.row, task.lost_by, lost_cause(task.row.failed), task.row.failed)
            else:
                self._queue(task, first=not is_suspect(task.row.failed))

    def _mark(self, task: Task, worker: str) -> None:
        task.lost_by = worker
        self._fail(task, task.row.failed + 1)

    def _fail(self, task: Task, failed: int) -> None:
        row = task.row = replace(task.row, failed=failed)
        self._ports.mark([Mark(RowKey(Source.TASK, row.key.partition, row.seq), row.failed, row.token)])

    def sort_again(self) -> None:
        """The executors are others now: see who takes what waits."""
        self._lanes.sort_again()

    def complete(self, answer: pb.ActivityResponse) -> Awaitable[object] | None:
        """Take the result of an activity task; return what is done when it is durable, None if it never will be."""
        token = answer.completionToken or self.seats.token_of((answer.instanceId, answer.taskId))
        opened = self._close(token)
        if opened is None:
            return self._complete_unknown(token, answer)
        return self._complete(opened.task.row, opened, answer)

    async def _complete_unknown(self, token: str, answer: pb.ActivityResponse) -> None:
        """Take a result whose task is not out here: its claim may still hold."""
        row = await self._find(token)
        if row is None:
            self._drop(answer)
        elif (done := self._complete(row, None, answer)) is not None:
            await done

    def _drop(self, answer: pb.ActivityResponse) -> None:
        _log.info("the result of activity %d of instance %r came too late or twice and was dropped (token %r)",
                  answer.taskId, answer.instanceId, answer.completionToken)
        self._ports.pump()

    def _complete(self, row: ActivityRow, opened: OpenActivity | None, answer: pb.ActivityResponse
                  ) -> asyncio.Future[Outcome] | None:
        first = self._completing.get((row.seq, row.token))
        if first is not None:
            self._drop(answer)
            return first  # nothing is acknowledged that may yet be lost
        try:
            message = activity_outcome(row, bounded_result(row.name, answer, self._limits.payload_bytes), self._clock.now())
        except Exception as error:
            self._refuse(opened.task if opened is not None else self._waiting.get(row.seq, Task(row)), opened, error)
            self._ports.pump()
            return None
        if opened is None:
            self._unqueue(row.seq)
        done = self._submit_result(ActivityCompletion(row.key, row.seq, row.token, message))
        self._completing[row.seq, row.token] = done
        done.add_done_callback(partial(self._completed, row, opened))
        self._ports.pump()
        return done

    def _completed(self, row: ActivityRow, opened: OpenActivity | None, done: asyncio.Future[Outcome]) -> None:
        """Note what became of a result."""
        del self._completing[row.seq, row.token]
        if done.cancelled():
            return
        outcome = done.result()
        if outcome.kind is OutcomeKind.COMMITTED and opened is not None:
            self.seats.suspicion.completed(opened.standing, opened.item)
        if outcome.kind is OutcomeKind.LOST:
            _log.info("the result of activity %d of instance %r counts no more: %s", row.task_id,
                      row.key.instance_id, outcome.cause)

    def _refuse(self, task: Task, opened: OpenActivity | None, error: Exception) -> None:
        """Try a task again a few times that fails in this host, then set it aside with the cause.

        `opened`: whose answer cannot be carried out; None when no worker is to blame.
        """
        cause, worker = cause_of(error, task.failures), opened.executor.name if opened is not None else None
        task.failures += 1
        if opened is None or self.seats.suspicion.counts(opened.standing, opened.item):
            self._fail(task, after_refusal(task.row.failed))
        else:
            report_worker(opened.standing, worker, cause)
        if self._waiting.get(task.row.seq, task) is not task:
            return  # claimed anew meanwhile
        self._unqueue(task.row.seq)
        if is_out(task.row.failed):
            self._set_aside(task.row, worker, cause, COUNTED_FAILURES)
        else:
            self._wait(task, task.failures)

    def _wait(self, task: Task, times: int) -> None:
        """Offer a task again after it has come back so many times in a row."""
        self._waiting[task.row.seq] = task
        asyncio.get_running_loop().call_later(delay_seconds(times), self._offer_again, task)

    def _unqueue(self, seq: int) -> None:
        task = self._waiting.pop(seq, None)
        if task is not None:
            self._lanes.remove(task)

    def _close(self, token: str) -> OpenActivity | None:
        activity = self.seats.close(token)
        if activity is not None and not activity.executor.profile.echoes_tokens:
            self._forget_silence(activity.key)
        return activity

    def _forget_silence(self, key: tuple[str, int]) -> None:
        """A key is free again on executors that answer without a token."""
        for task in self._silenced.pop(key, ()):
            if task.needs is not None:
                task.needs = replace(task.needs, echo=False)
            self._lanes.move(task)

    def _submit_result(self, item: ActivityCompletion) -> asyncio.Future[Outcome]:
        """Submit a result; the turn that it triggers may run at once."""
        seq = self._speculation.enter(item.message) if self._ports.may_run_ahead() else None
        return self._ports.submit_ahead(item, seq)

    async def _find(self, token: str) -> ActivityRow | None:
        """Find the task of a token that this board did not hand out, or has taken back: its claim may still hold.

        Waits for the database: an SDK that is told of an error drops the result, and the task would stay claimed.
        """
        claim = parse_activity_token(token, self._hub.hub_id)
        while claim is not None:
            try:
                return await self._ports.find_activity(*claim)
            except UnavailableError as error:
                _log.warning("the task of a result cannot be looked for yet, trying again: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
        return None

    def abandon(self, token: str) -> None:
        """Take an activity task back; it is offered again after a delay that grows with each abandon in a row."""
        activity = self._close(token)
        if activity is not None:
            task = activity.task
            task.abandons += 1
            task.abandoned_by = activity.executor
            if task.abandons % REPORT_ABANDONS == 0:
                _log.warning("activity %d (%r) of instance %r was given back %d times in a row, the last by worker %r",
                             task.row.task_id, task.row.name, task.row.key.instance_id, task.abandons,
                             activity.executor.name)
            if task.row.seq in self._waiting:
                return  # claimed anew meanwhile
            self._wait(task, task.abandons)

    def _offer_again(self, task: Task) -> None:
        if self._waiting.get(task.row.seq) is task:  # else its result has come meanwhile
            self._lanes.add(task)
            self._ports.pump()
