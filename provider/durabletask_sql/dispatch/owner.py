"""The committer loop of one task hub: the only place from which its rows are claimed.

Items are submitted from anywhere on the event loop; this loop commits them in groups and loads what memory wants, one
transaction after the other, each reply merged into memory before the next begins. Nothing is answered and nothing
is dispatched before its transaction is durable.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from durabletask_sql.clock import MICROSECONDS, Clock
from durabletask_sql.dispatch.delays import Delays
from durabletask_sql.dispatch.filling import Filler
from durabletask_sql.dispatch.grouping import (
    Submission,
    activity_classes,
    choose_entering,
    choose_looks,
    free_of,
    left_of_shares,
    take_group,
)
from durabletask_sql.dispatch.merging import Merger
from durabletask_sql.dispatch.pace import Pace
from durabletask_sql.dispatch.parking import Parking
from durabletask_sql.dispatch.refusals import Refusals
from durabletask_sql.errors import DurableTaskSqlError, OutcomeUnknownError, UnavailableError
from durabletask_sql.ids import new_claim_token
from durabletask_sql.model.checkpoints import (
    ActivityCompletion,
    Item,
    OrchestrationStart,
    Outcome,
    OutcomeKind,
    TurnCheckpoint,
)
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import ActivityRow
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.partitions.speculation import Speculation
from durabletask_sql.ports.claims import ActivityClaim, ActivityRoom
from durabletask_sql.ports.committer import Committed, Committer, Group, Load

_log = logging.getLogger(__name__)

TIMER_WINDOW = 60 * MICROSECONDS
TIMER_LIMIT = 10_000
SCAN_LIMIT = 500
PACK_AHEAD_BYTES = 256 * 1024
_FIRST_RETRY_SECONDS = 0.05
_LAST_RETRY_SECONDS = 2.0
_REPORT_BUSY_SECONDS = 5.0


class RoomFor(Protocol):
    """Tells for which new activity tasks there is room; `backlog`: some may wait that nobody has claimed."""

    def __call__(self, classes: Iterable[tuple[str, str | None]], *, backlog: bool) -> ActivityRoom:
        """Return the room for tasks of these names and versions."""
        ...


@dataclass(frozen=True, slots=True)
class OwnerEvents:
    """Whom the loop tells: work may be ready, activity tasks arrived, an instance changed, ownership is unknown.

    `tell_of` is told of each group, for what other hosts should hear of it, with the partitions that are still ours.
    And whom it asks: for which activity tasks there is room, which to claim, how many items are out at executors
    for which a commit may wait.
    """

    ready: Callable[[], None]
    activities: Callable[[Iterable[ActivityRow]], None]
    activity_room: RoomFor
    activity_claims: Callable[[], tuple[ActivityClaim, ...]]
    changed: Callable[[TurnCheckpoint], None]
    tell_of: Callable[[Group, Committed, frozenset[int]], None]
    recover: Callable[[], Awaitable[None]]
    outstanding: Callable[[], int]


class Owner:
    """Commits and loads for the partitions that this host owns."""

    def __init__(self, committer: Committer, memory: Memory, speculation: Speculation, clock: Clock, host_id: int,
                 events: OwnerEvents, parking: Parking) -> None:
        """Take the parts; `run` does the work."""
        self._committer = committer
        self._memory = memory
        self._clock = clock
        self._host_id = host_id
        self._events = events
        self._merger = Merger(memory, speculation)
        self._parking = parking
        self._refusals = Refusals(memory, Delays(memory, events.ready), self._queue)
        self._filler = Filler(committer, memory, events.ready)
        self._packing: set[asyncio.Task[None]] = set()
        self._pending: list[Submission] = []
        self._pace = Pace()
        self._event = asyncio.Event()
        self._idle = asyncio.Event()
        self._solo: set[asyncio.Task[None]] = set()
        self._unknown = False
        self._lost_claims: list[int] = []
        self.unclaimed_activities = True

    def submit(self, item: Item, provisional: int | None = None) -> asyncio.Future[Outcome]:
        """Queue an item for the next group; the future tells what became of it once that is durable.

        `provisional` is the sequence under which its message is in memory already.
        """
        submission = Submission(item, asyncio.get_running_loop().create_future(), provisional)
        if isinstance(item, TurnCheckpoint) and submission.size >= PACK_AHEAD_BYTES:
            task = asyncio.create_task(self._pack(submission, item))
            self._packing.add(task)
            task.add_done_callback(self._packing.discard)
        else:
            self._queue(submission)
        return submission.done

    async def _pack(self, submission: Submission, turn: TurnCheckpoint) -> None:
        """Pack the texts of a large turn before it joins a group, so that the group does not wait for that."""
        with suppress(Exception):  # its group meets the same, and tells which item it is
            submission.item = await self._committer.pack(turn)
        self._queue(submission)

    def _queue(self, submission: Submission) -> None:
        self._pending.append(submission)
        self._pace.arrived(self._clock.monotonic(), len(self._pending))
        self._event.set()

    def kick(self) -> None:
        """Look again at what memory wants."""
        self._event.set()

    def lose_ownership(self) -> None:
        """Note that it is not known what is ours: memory is dropped and epochs raised before anything else."""
        self._unknown = True
        self._event.set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way to the database."""
        return not self._pending and not self._packing and not self._solo and self._idle.is_set()

    @property
    def is_busy(self) -> bool:
        """Whether executors have enough to do, and answer fast."""
        return self._pace.is_busy(self._events.outstanding())

    async def run(self) -> None:
        """Commit and load until cancelled."""
        delay = _FIRST_RETRY_SECONDS
        while True:
            if not self._has_work():
                self._idle.set()
                self._event.clear()
                await self._event.wait()
            self._idle.clear()
            if self._pending:
                await asyncio.sleep(0)  # what the last commit brought is handed out
                if self._events.outstanding():
                    await asyncio.sleep(0)  # and goes out before the next one keeps the loop busy
                    await self._pace.gather(len(self._pending), self._events.outstanding())
            self._event.clear()
            try:
                await self._step()
                delay = _FIRST_RETRY_SECONDS
            except (OutcomeUnknownError, UnavailableError) as error:  # unknown: where ownership was to be made sure of
                _log.warning("the database is not available, trying again in %.2f s: %s", delay, error)
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LAST_RETRY_SECONDS)

    def _has_work(self) -> bool:
        return (bool(self._pending) or self._unknown or self._wants_load() or self._memory.filling.has_work()
                or self._parking.wants())

    def _wants_load(self) -> bool:
        memory = self._memory
        return memory.wants_anything() or (memory.wants_timers and bool(memory.epochs)) or self._wants_activities()

    def _wants_activities(self) -> bool:
        return self.unclaimed_activities and bool(self._events.activity_claims())

    async def _step(self) -> None:
        if self._unknown:
            await self._events.recover()
            await self._committer.release_claims(self._host_id, self._lost_claims)
            self._lost_claims.clear()
            self.unclaimed_activities = True
            self._unknown = False
        if self._pending:
            await self._commit(take_group(self._pending))
        if self._wants_load() and not self._unknown:
            await self._load()
        if not self._unknown:
            await self._parking.step()
        self._filler.start()
        self._events.ready()

    # Groups

    async def _commit(self, submissions: list[Submission]) -> None:
        submissions = self._drop_foreign(submissions)
        if not submissions:
            return
        items = tuple(submission.item for submission in submissions)
        entering = choose_entering(self._memory, items)
        group = self._group(items, entering, choose_looks(self._memory, items, entering))
        try:
            committed = await self._committer.commit(group)
        except OutcomeUnknownError as error:
            self._lost_claims.append(group.claim_token)
            self._unknown_outcome(submissions, error)
            return
        except UnavailableError as error:
            self._pending[:0] = [one for one in submissions if not isinstance(one.item, OrchestrationStart)]
            for submission in submissions:
                if isinstance(submission.item, OrchestrationStart):  # its client is there to be told
                    self._merger.withdraw(submission.item, submission.provisional)
                    submission.settle(Outcome(OutcomeKind.LOST, str(error)))
            raise
        self._follow(group, submissions, committed)

    def _group(self, items: tuple[Item, ...], entering: frozenset[InstanceKey],
               looks: tuple[InstanceKey, ...]) -> Group:
        now = self._clock.now()
        room = self._events.activity_room(activity_classes(items), backlog=self.unclaimed_activities)
        return Group(items, dict(self._memory.epochs), now, self._host_id, new_claim_token(), room, now + TIMER_WINDOW,
                     entering, looks)

    def _drop_foreign(self, submissions: list[Submission]) -> list[Submission]:
        """Turns of partitions that went meanwhile are lost before they are tried."""
        kept = []
        for submission in submissions:
            item = submission.item
            if item.key.partition in self._memory.epochs or isinstance(item, ActivityCompletion):
                kept.append(submission)
            else:
                submission.settle(Outcome(OutcomeKind.LOST, "its partition is not owned by this host any more"))
        return kept

    def _follow(self, group: Group, submissions: list[Submission], committed: Committed) -> None:
        """Merge a reply, answer the submitters, and take care of the items that did not commit."""
        live = self._merger.merge(group, committed, [submission.provisional for submission in submissions])
        self._events.tell_of(group, committed, live)
        if committed.activities:
            self._events.activities(committed.activities)
        self.unclaimed_activities |= committed.unclaimed_activities
        for submission, outcome in zip(submissions, committed.outcomes, strict=True):
            item = submission.item
            if outcome.kind is OutcomeKind.COMMITTED and isinstance(item, TurnCheckpoint):
                self._events.changed(item)
            if outcome.kind is OutcomeKind.BUSY and not isinstance(item, OrchestrationStart):
                submission.provisional = None
                self._start_solo(submission)
            elif outcome.kind is OutcomeKind.REFUSED:
                self._refusals.follow(submission, outcome)
            else:
                submission.settle(outcome)
        if committed.lost_partitions & live:
            self.lose_ownership()

    def _unknown_outcome(self, submissions: list[Submission], error: OutcomeUnknownError) -> None:
        """Drop what only an owner may repeat; what is fenced by its claim or its execution id simply goes again."""
        _log.warning("the outcome of a commit of %d items is unknown, reloading: %s", len(submissions), error)
        for submission in submissions:
            if isinstance(submission.item, ActivityCompletion | OrchestrationStart):
                submission.provisional = None  # its memory is dropped before anything else happens
                self._pending.append(submission)
            else:
                submission.settle(Outcome(OutcomeKind.LOST, "the outcome of its commit is unknown"))
        self.lose_ownership()

    # The solo lane

    def _start_solo(self, submission: Submission) -> None:
        task = asyncio.create_task(self._run_solo(submission))
        self._solo.add(task)
        task.add_done_callback(self._solo_done)

    def _solo_done(self, task: asyncio.Task[None]) -> None:
        self._solo.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the solo lane failed; reloading", exc_info=error)
            self.lose_ownership()
        self._event.set()

    async def _run_solo(self, submission: Submission) -> None:
        """Try one item alone, with growing delays, while another session holds a row that it needs."""
        delay, began, reported = _FIRST_RETRY_SECONDS, self._clock.monotonic(), False
        while True:
            group = replace(self._group((submission.item,), frozenset(), ()), alone=True,
                            activity_room=ActivityRoom())
            if not self._drop_foreign([submission]):
                return
            try:
                committed = await self._committer.commit_alone(group)
            except OutcomeUnknownError as error:
                self._unknown_outcome([submission], error)
                return
            except UnavailableError as error:
                committed = Committed((Outcome(OutcomeKind.BUSY, str(error)),))
            outcome = committed.outcomes[0]
            if outcome.kind is not OutcomeKind.BUSY:
                self._follow(group, [submission], committed)
                self._events.ready()
                return
            if not reported and self._clock.monotonic() - began > _REPORT_BUSY_SECONDS:
                reported = True
                _log.warning("instance %r has waited %.0f s for a row that another session holds locked: %s; %s",
                             submission.item.key.instance_id, _REPORT_BUSY_SECONDS, outcome.cause, await self._holders())
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LAST_RETRY_SECONDS)

    async def _holders(self) -> str:
        try:
            return await self._committer.holders()
        except DurableTaskSqlError as error:
            return f"who it is cannot be told: {error}"

    # Loads

    async def _load(self) -> None:
        memory, now = self._memory, self._clock.now()
        wanted = memory.take_wanted()
        with_timers, memory.wants_timers = memory.wants_timers, False
        load = Load(
            epochs=dict(memory.epochs), host_id=self._host_id, claims=wanted.claims, fresh=wanted.fresh,
            warm=frozenset(mem.key for mem in memory if mem.known and not mem.stale) if wanted.scan else frozenset(),
            scan={partition: min(room, SCAN_LIMIT) for partition, room in wanted.scan.items()},
            full=memory.ceilings.full() if wanted.scan else frozenset(), share=memory.limits.share_messages,
            left=left_of_shares(memory, (mem.key for mem in memory) if wanted.scan else (*wanted.claims, *wanted.fresh)),
            free=free_of(memory),
            timer_horizon=now + TIMER_WINDOW if with_timers else 0, timer_limit=TIMER_LIMIT if with_timers else 0,
            activities=self._events.activity_claims() if self.unclaimed_activities else (),
            claim_token=new_claim_token(),
        )
        try:
            loaded = await self._committer.load(load)
        except (OutcomeUnknownError, UnavailableError) as error:
            # Nothing of the memory is missing for it: raising the epochs brings everything back.
            _log.warning("a load failed, reloading: %s", error)
            self._lost_claims.append(load.claim_token)
            self.lose_ownership()
            return
        live = self._merger.merge_load(load, loaded)
        if load.activities:
            self.unclaimed_activities = loaded.activities_full
            self._events.activities(loaded.activities)
        if loaded.lost_partitions & live:
            self.lose_ownership()
