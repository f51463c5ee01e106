"""The owner's committer over SQL: groups with their failure rules, loads, polls.

One bad item never harms its group: what another session keeps locked leaves it as BUSY, what lost its fence as LOST,
what the database refuses is found by halving and leaves as REFUSED. The others commit.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from durabletask_sql.errors import DurableTaskSqlError, OutcomeUnknownError, UnavailableError
from durabletask_sql.model.checkpoints import (
    ActivityCompletion,
    Discard,
    EntityCheckpoint,
    Item,
    OrchestrationStart,
    Outcome,
    OutcomeKind,
    Quarantine,
    TurnCheckpoint,
)
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import ActivityRow
from durabletask_sql.ports.committer import Committed, Group, HollowHistory, Load, Loaded, Pending
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.parking import Park, Parked, ParkedCounts, ParkedPlace, ParkedRow
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.database import Database
from durabletask_sql.storage.dialect import Statement
from durabletask_sql.storage.faults import (
    ConflictError,
    ConnectionLostError,
    LockTimeoutError,
    RefusedError,
    ShortWriteError,
    TransactionError,
    WouldWaitError,
)
from durabletask_sql.storage.filtering import can_be_trusted
from durabletask_sql.storage.group import GroupAttempt
from durabletask_sql.storage.holders import holders
from durabletask_sql.storage.load import LoadAttempt, task_rows
from durabletask_sql.storage.packing import pack_turn
from durabletask_sql.storage.parking import count_parked, park, read_parked, unpark
from durabletask_sql.storage.pending import PENDING
from durabletask_sql.storage.session import Reply, Session, asked, repeated, written
from durabletask_sql.storage.task_claims import COUNT_UNCLAIMED, GIVE_BACK, RELEASE_CLAIMS
from durabletask_sql.storage.texts import fill

_log = logging.getLogger(__name__)

T = TypeVar("T")

_ATTEMPTS = 6
_SHORT_ITEMS = 16
_SHORT_ROWS = 64
_UNDONE = "the database has recovered from a crash, or another has taken over: what was not durable may be undone"


class SqlCommitter:
    """Implements `ports.committer.Committer` for one hub."""

    def __init__(self, database: Database, hub: TaskHub) -> None:
        """Take the lanes of this database."""
        self._database = database
        self._hub = hub
        self._lineage: str | None = None  # of the server under which the owner's memory began; None: with the next one

    async def _run(self, work: Callable[[Session], T], *, short: bool = False) -> T:
        """Run what an owner's memory rests on, or what rests on it.

        Memory believes in rows that were claimed and parked by transactions that need not be durable. Raises
        OutcomeUnknownError when they may be undone, even if no connection was in use at that time.
        """
        def checked(session: Session) -> T:
            found = session.lineage()
            if self._lineage not in (None, found):
                raise OutcomeUnknownError(_UNDONE)
            self._lineage = found
            return work(session)

        try:
            return await self._database.committer.run(checked, short=short)
        except OutcomeUnknownError:
            self._lineage = None  # the epochs are raised before anything else
            raise

    async def commit(self, group: Group) -> Committed:
        """Commit a group; a bad item leaves it, with its outcome saying why, and the others commit."""
        short = sum(map(_rows, group.items)) <= _SHORT_ROWS
        return await self._run(lambda session: self.commit_on(session, group), short=short)

    async def commit_alone(self, group: Group) -> Committed:
        """Commit a group of one item on a connection of its own, beside the committer."""
        return await self._database.solo.run(lambda session: self.commit_on(session, replace(group, alone=True)))

    def commit_on(self, session: Session, group: Group) -> Committed:
        """Commit a group on this session, on this thread."""
        return GroupCommit(session, self._hub.hub_id, one_writer=self._database.is_sqlite).commit(group)

    async def load(self, load: Load) -> Loaded:
        """Claim and read."""
        short = not load.scan and len(load.claims) + len(load.fresh) <= _SHORT_ITEMS
        return await self._run(lambda session: self.load_on(session, load), short=short)

    def load_on(self, session: Session, load: Load) -> Loaded:
        """Claim and read on this session, on this thread."""
        def attempt() -> Loaded:
            work = LoadAttempt(session, self._hub.hub_id, load)
            try:
                return work.run_trusting() if work.can_trust else work.run()
            except ShortWriteError:
                return work.run()

        return _repeated("a load", attempt)

    async def park(self, what: Park) -> Parked:
        """Park rows that cannot run."""
        return await self._run(lambda session: _repeated(
            "a parking", lambda: park(session, self._hub.hub_id, what)))

    async def unpark(self, keys: Sequence[InstanceKey]) -> Parked:
        """Make the parked rows of some instances rows that nobody holds."""
        return await self._run(lambda session: _repeated(
            "an un-parking", lambda: unpark(session, self._hub.hub_id, keys)))

    async def parked(self, place: ParkedPlace, limit: int) -> Sequence[ParkedRow]:
        """Return the next parked rows from a place on, in order of sequence."""
        return await self._database.readers.run(lambda session: read_parked(
            session, self._hub.hub_id, place, limit))

    async def count_parked(self, limit: int) -> ParkedCounts:
        """Count what is parked, by name: of at most `limit` instances and entities."""
        return await self._database.readers.run(lambda session: count_parked(session, self._hub.hub_id, limit))

    async def pack(self, turn: TurnCheckpoint) -> TurnCheckpoint:
        """Return a turn with its texts packed as they are stored."""
        return replace(turn, packed=await asyncio.to_thread(pack_turn, turn))

    async def fill(self, hollow: HollowHistory) -> tuple[bytes, ...] | None:
        """Return a history with its texts; None when they are gone, with their execution."""
        parts = [(events, hollow.refs.get(place)) for place, events in enumerate(hollow.parts)]
        filled = await self._database.readers.run(
            lambda session: fill(session, self._hub.hub_id, hollow.key, hollow.execution_id, parts))
        return None if filled is None else tuple(filled)

    async def poll(self, host_id: int, timer_horizon: int) -> Pending:
        """Look, in one cheap statement without writing, whether anything waits that other processes wrote."""
        rows, lineage = await self._database.readers.run(lambda session: (asked(
            session, PENDING, hub=self._hub.hub_id, owner=host_id, horizon=timer_horizon), session.lineage()))
        undone = self._lineage not in (None, lineage)
        if undone:
            self._lineage = None  # the epochs are raised before anything else
        return Pending(frozenset(partition for kind, partition in rows if kind == "queue"),
                       frozenset(partition for kind, partition in rows if kind == "timers"),
                       any(kind == "tasks" for kind, _ in rows), any(kind == "leases" for kind, _ in rows),
                       undone)

    async def activity(self, partition: int, seq: int, token: int) -> ActivityRow | None:
        """Return the activity task with this sequence if it is still held under this claim, else None."""
        rows = await self._database.readers.run(lambda session: asked(
            session, sql.FIND_TASK, [(partition, seq)], hub=self._hub.hub_id, claim=token))
        return next(iter(task_rows(Reply(rows))), None)

    async def holders(self) -> str:
        """Say which sessions may hold the rows that an item waits for."""
        return await self._database.readers.run(lambda session: repeated(
            session, lambda: holders(session, is_sqlite=self._database.is_sqlite)))

    async def give_back(self, host_id: int, tasks: Sequence[ActivityRow]) -> None:
        """Leave claimed activity tasks to others; a claim that does not hold any more is passed over."""
        rows = sorted((task.key.partition, task.seq, task.token) for task in tasks)
        await self._database.committer.run(lambda session: written(
            session, GIVE_BACK, rows, hub=self._hub.hub_id, owner=host_id))

    async def count_unclaimed(self, limit: int) -> Sequence[tuple[str, str | None, int]]:
        """Return the names and versions of unclaimed activity tasks with how many there are, of the oldest `limit`."""
        rows = await self._database.readers.run(lambda session: asked(
            session, COUNT_UNCLAIMED, hub=self._hub.hub_id, room=limit))
        return [(name, version, count) for name, version, count in rows]

    async def release_claims(self, host_id: int, tokens: Sequence[int]) -> None:
        """Give back the activity tasks that a host claimed under these tokens."""
        if tokens:
            rows = [(token,) for token in tokens]
            await self._database.committer.run(lambda session: written(
                session, RELEASE_CLAIMS, rows, hub=self._hub.hub_id, owner=host_id))


class GroupCommit:
    """The failure rules around attempts at one group."""

    def __init__(self, session: Session, hub_id: int, *, one_writer: bool) -> None:
        """Work on this session."""
        self._session = session
        self._hub = hub_id
        self._one_writer = one_writer

    def commit(self, group: Group) -> Committed:
        """Commit what can be committed; return an outcome for every item."""
        outcomes: dict[int, Outcome] = {}
        active = list(range(len(group.items)))
        failure: TransactionError | None = None
        trusts = True
        for _ in range(_ATTEMPTS):
            whole = len(active) == len(group.items)
            part = group if whole else replace(group, items=tuple(group.items[at] for at in active))
            if not part.items and not part.looks:
                return Committed(_in_order(outcomes))
            attempt = GroupAttempt(self._session, self._hub, part, one_writer=self._one_writer)
            try:
                done = self._guarded(part, partial(self._trusting, attempt)) if trusts and can_be_trusted(part) else None
                trusts = False
                if done is None:
                    done = self._guarded(part, attempt.run)
            except ConnectionLostError as error:
                raise _unknown(error) from error
            except (LockTimeoutError, ShortWriteError) as error:
                failure = error
                leaving = self._find_leaving(part, error)
                if not leaving:
                    continue
                outcomes.update({active[at]: outcome for at, outcome in leaving.items()})
                active = [number for at, number in enumerate(active) if at not in leaving]
            except ConflictError as error:
                _log.error("a group commit is repeated after a deadlock or serialization failure: %s", error)
                failure = error
            except RefusedError as error:
                failure = error
                break
            else:
                outcomes.update(zip(active, done.outcomes, strict=True))
                return done if whole else replace(done, outcomes=_in_order(outcomes))
        return self._after_failure(group, active, outcomes, failure)

    def _guarded(self, group: Group, attempt: Callable[[], T]) -> T:
        """Run an attempt. A bug that an item meets is found by halving, like what the database refuses."""
        try:
            return attempt()
        except (DurableTaskSqlError, TransactionError, WouldWaitError):
            raise
        except Exception as error:
            self._session.rollback()
            if len(group.items) <= 1:
                _log.error("an item that meets a bug of this host leaves its group", exc_info=error)
            message = f"a bug of this host, {type(error).__name__}: {error}"
            raise RefusedError(message) from error

    @staticmethod
    def _trusting(attempt: GroupAttempt) -> Committed | None:
        """Try it the short way; None when a fence does not hold."""
        try:
            return attempt.run_trusting()
        except ShortWriteError:
            return None

    def _after_failure(self, group: Group, active: list[int], outcomes: dict[int, Outcome],
                       failure: TransactionError | None) -> Committed:
        """One item: it is at fault. More: each half on its own, until the bad one is alone.

        The looks belong to the whole group, whatever becomes of its items: they come with its last half, or alone.
        """
        if not group.items:
            message = f"what others wrote could not be looked for: {failure}"
            raise UnavailableError(message) from failure
        if len(active) <= 1:
            kind = OutcomeKind.REFUSED if isinstance(failure, RefusedError) else OutcomeKind.BUSY
            outcomes.update({at: Outcome(kind, str(failure)) for at in active})
            done = self.commit(replace(group, items=()))
            return replace(done, outcomes=_in_order(outcomes))
        middle, halves = len(active) // 2, list[Committed]()
        for number, numbers in enumerate((active[:middle], active[middle:])):
            looks = group.looks if number else ()
            part = replace(group, items=tuple(group.items[at] for at in numbers), looks=looks)
            try:
                halves.append(self.commit(part))
            except UnavailableError as error:
                if halves:
                    message = f"a part of a group was committed, the rest was not: {error}"
                    raise OutcomeUnknownError(message) from error
                raise
            outcomes.update(zip(numbers, halves[-1].outcomes, strict=True))
        return _joined(halves, _in_order(outcomes))

    def _find_leaving(self, group: Group, error: LockTimeoutError | ShortWriteError) -> dict[int, Outcome]:
        """Return the items that an attempt failed for, with their outcomes; none: the attempt is simply repeated."""
        kind = OutcomeKind.BUSY if isinstance(error, LockTimeoutError) else OutcomeKind.LOST
        cause = Outcome(kind, str(error))
        match error.table:
            case "instances" if isinstance(error, LockTimeoutError):
                # Who holds a key that is not visible cannot be told: all that create instances leave.
                return {at: cause for at, item in enumerate(group.items)
                        if isinstance(item, OrchestrationStart)
                        or (isinstance(item, TurnCheckpoint | EntityCheckpoint) and item.children)}
            case "entities":  # likewise
                return {at: cause for at, item in enumerate(group.items)
                        if isinstance(item, EntityCheckpoint) and not item.expected_version}
            case "partitions":
                free = self._present(sql.LOCK_FREE_PARTITIONS, [(partition,) for partition in sorted(group.epochs)])
                return {at: cause for at, item in enumerate(group.items)
                        if item.key.partition in group.epochs and (item.key.partition,) not in free}
            case "control_queue" | "timers" | "activity_queue" as table:
                keys = {at: keys_of(item, table) for at, item in enumerate(group.items)}
                every = sorted({key for found in keys.values() for key in found})
                statement = sql.LOCK_TASKS if table == "activity_queue" else (
                    sql.LOCK_QUEUE_KEYS if kind is OutcomeKind.BUSY else sql.READ_QUEUE_KEYS)[table]
                free = self._present(statement, every)
                return {at: cause for at, found in keys.items() if any(key not in free for key in found)}
            case _:
                return {}

    def _present(self, statement: Statement, keys: list[tuple[int, ...]]) -> set[tuple[int, ...]]:
        """Ask, in a transaction of its own, which keys are there and free."""
        if not keys:
            return set()
        try:
            self._session.begin()
            rows = self._session.ask(statement, keys, hub=self._hub)
            self._session.rollback()
        except TransactionError as error:
            message = f"which items stand in a group's way cannot be told, nothing of it was written: {error}"
            raise UnavailableError(message) from error
        return {row[:len(keys[0])] for row in rows}


def keys_of(item: Item, table: str) -> list[tuple[int, ...]]:
    """Return the keys of a queue that an item needs."""
    partition = item.key.partition
    match item:
        case TurnCheckpoint() | EntityCheckpoint():
            seqs = {"control_queue": item.consumed, "timers": item.consumed_timers}.get(table, ())
        case ActivityCompletion():
            seqs = (item.seq,) if table == "activity_queue" else ()
        case Quarantine():
            task = (item.activity[0],) if item.activity is not None else ()
            seqs = {"control_queue": item.seqs, "timers": item.timers, "activity_queue": task}.get(table, ())
        case _:
            seqs = ()
    return [(partition, seq) for seq in seqs]


def _in_order(outcomes: dict[int, Outcome]) -> tuple[Outcome, ...]:
    return tuple(outcomes[at] for at in sorted(outcomes))


def _joined(parts: Sequence[Committed], outcomes: tuple[Outcome, ...]) -> Committed:
    ceilings = {key: value for part in parts for key, value in part.ceilings.items()}
    return Committed(
        outcomes, tuple(row for part in parts for row in part.entered), ceilings,
        tuple(row for part in parts for row in part.timers), tuple(row for part in parts for row in part.activities),
        any(part.unclaimed_activities for part in parts), tuple(row for part in parts for row in part.children),
        frozenset(key for part in parts for key in part.unheld),
        frozenset(partition for part in parts for partition in part.lost_partitions))


def _repeated(what: str, attempt: Callable[[], T]) -> T:
    """Run a transaction that claims or parks, again when it met another session's locks."""
    for number in range(_ATTEMPTS):
        try:
            return attempt()
        except ConnectionLostError as error:
            raise _unknown(error) from error
        except (LockTimeoutError, ConflictError) as error:
            _log.warning("%s is repeated (%d of %d): %s", what, number + 1, _ATTEMPTS, error)
        except TransactionError as error:
            raise UnavailableError(str(error)) from error
    message = f"{what} met locks of other sessions too often"
    raise UnavailableError(message)


def _rows(item: Item) -> int:
    """Return how many queue rows an item writes and deletes, about."""
    if isinstance(item, Discard | Quarantine):
        return 1 + len(item.seqs) + len(item.timers)
    if not isinstance(item, TurnCheckpoint | EntityCheckpoint):
        return 1
    tasks = len(item.activities) if isinstance(item, TurnCheckpoint) else 0
    return (1 + len(item.consumed) + len(item.consumed_timers) + len(item.messages) + len(item.timers)
            + len(item.children) + tasks)


def _unknown(error: ConnectionLostError) -> OutcomeUnknownError | UnavailableError:
    return OutcomeUnknownError(str(error)) if error.sent else UnavailableError(str(error))
