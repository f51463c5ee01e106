"""What a turn sees: which of an instance's rows it consumes, in what order, and which nobody will ever take."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from durabletask_sql.model.instances import InstanceRow
from durabletask_sql.model.messages import MessageKind, QueueRow, TimerRow
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import event_kind, frame, iter_events, iter_frames

_TERMINATED = pb.HistoryEvent.EXECUTIONTERMINATED_FIELD_NUMBER
_SUSPENDED = pb.HistoryEvent.EXECUTIONSUSPENDED_FIELD_NUMBER
_RESUMED = pb.HistoryEvent.EXECUTIONRESUMED_FIELD_NUMBER

Row = QueueRow | TimerRow
RowT = TypeVar("RowT", QueueRow, TimerRow)


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """How much one turn takes, at least one message, however large; `payload_bytes` is the most that a text may have."""

    messages: int = 1_000
    bytes: int = 1024 * 1024
    payload_bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Termination:
    """A termination that a turn delivers: the first reason, and whether any of the merged ones recurses."""

    reason: str | None
    recurse: bool


@dataclass(frozen=True, slots=True, eq=False)
class Intake:
    """What a turn consumes and sees.

    `runs` False: there is nothing to run, `discarded` rows aside. `new_events` is framed and begins with
    OrchestratorStarted, whose time is `started_at`; `event_count` counts it. `suspended` is the last of suspend (True)
    and resume (False) in the batch. `terminated` with `ends_pending`: the instance has no committed history, so the
    host itself ends it (S-416).
    """

    runs: bool
    consumed: tuple[int, ...] = ()
    consumed_timers: tuple[int, ...] = ()
    discarded: tuple[int, ...] = ()
    discarded_timers: tuple[int, ...] = ()
    new_events: bytes = b""
    event_count: int = 0
    started_at: int = 0
    terminated: Termination | None = None
    ends_pending: bool = False
    suspended: bool | None = None


@dataclass(slots=True)
class _Batch:
    rows: list[Row]
    parts: list[bytes]
    count: int = 1  # OrchestratorStarted
    suspended: bool | None = None


def take(row: InstanceRow, rows: Sequence[QueueRow], timers: Sequence[TimerRow], now: int,
         limits: TurnLimits) -> Intake:
    """Choose what the next turn of an instance consumes.

    `rows` are those below the ceiling, the start row of the current execution first, the others by sequence; due
    `timers` come behind them. A suspension ends the batch (S-244). A termination is delivered in a turn of its own,
    after everything before it, all queued ones merged (S-416); before any history it ends the instance at once.
    """
    live, discarded = _split(row, rows)
    live_timers, discarded_timers = _split(row, sorted(timers, key=lambda timer: (timer.fire_at, timer.seq)))
    dead = (tuple(one.seq for one in discarded), tuple(one.seq for one in discarded_timers))
    terminations = [one for one in live if _holds_termination(one)]
    if terminations and not row.history_count:
        return _end_pending(row, [*live, *live_timers], terminations, dead, now)
    every: list[Row] = [*live, *live_timers]
    ordered = sorted(every, key=lambda one: one.kind is not MessageKind.START)
    if not ordered or (not row.history_count and ordered[0].kind is not MessageKind.START):
        return Intake(runs=False, discarded=dead[0], discarded_timers=dead[1])
    if ordered[0] in terminations:
        return _terminate(row, terminations, dead, now)
    batch = _fill(ordered, limits)
    started_at = _started_at(row, batch.rows, now)
    started = frame(events.orchestrator_started(started_at))
    return Intake(
        runs=True, consumed=_seqs(batch.rows, QueueRow), consumed_timers=_seqs(batch.rows, TimerRow),
        discarded=dead[0], discarded_timers=dead[1], new_events=b"".join((started, *batch.parts)),
        event_count=batch.count, started_at=started_at, suspended=batch.suspended)


def _split(row: InstanceRow, rows: Iterable[RowT]) -> tuple[list[RowT], list[RowT]]:
    """Part what the current execution may see from what no turn will ever take."""
    live: list[RowT] = []
    dead: list[RowT] = []
    for one in rows:
        other = not row.is_addressed_by(one.execution_id)
        # A start row without events only wakes an instance that was rewound: its history holds the start already.
        late_start = one.kind is MessageKind.START and bool(row.history_count) and bool(one.events)
        (dead if row.status.is_terminal or other or late_start else live).append(one)
    return live, dead


def _holds_termination(row: Row) -> bool:
    return row.kind is MessageKind.EVENT and any(event_kind(body) == _TERMINATED for body in iter_frames(row.events))


def _fill(ordered: Sequence[Row], limits: TurnLimits) -> _Batch:
    """Take rows until a limit, a suspension (it goes in last) or a termination (it stays out)."""
    batch, size = _Batch([], []), 0
    for one in ordered:
        size += len(one.events)
        if batch.rows and (len(batch.rows) >= limits.messages or size > limits.bytes):
            break
        kinds = [event_kind(body) for body in iter_frames(one.events)]
        if _TERMINATED in kinds:
            break
        batch.rows.append(one)
        batch.parts.append(one.events)
        batch.count += len(kinds)
        if _SUSPENDED in kinds:
            batch.suspended = True
            break
        if _RESUMED in kinds:
            batch.suspended = False
    return batch


def _terminate(row: InstanceRow, terminations: Sequence[Row], dead: tuple[tuple[int, ...], tuple[int, ...]],
               now: int) -> Intake:
    """All queued terminations, merged, as the only event of a turn."""
    merged, started_at = _merge(terminations), _started_at(row, (), now)
    event = events.execution_terminated(started_at, merged.reason, recurse=merged.recurse)
    return Intake(
        runs=True, consumed=_seqs(terminations, QueueRow), discarded=dead[0], discarded_timers=dead[1],
        new_events=frame(events.orchestrator_started(started_at)) + frame(event), event_count=2,
        started_at=started_at, terminated=merged)


def _end_pending(row: InstanceRow, rows: Sequence[Row], terminations: Sequence[Row],
                 dead: tuple[tuple[int, ...], tuple[int, ...]], now: int) -> Intake:
    return Intake(
        runs=True, consumed=_seqs(rows, QueueRow), consumed_timers=_seqs(rows, TimerRow), discarded=dead[0],
        discarded_timers=dead[1], started_at=_started_at(row, (), now), terminated=_merge(terminations),
        ends_pending=True)


def _merge(terminations: Sequence[Row]) -> Termination:
    found = [event.executionTerminated for row in terminations for event in iter_events(row.events)]
    first = found[0]
    return Termination(first.input.value if first.HasField("input") else None, any(one.recurse for one in found))


def _started_at(row: InstanceRow, rows: Sequence[Row], now: int) -> int:
    """Later than every earlier turn and than every delivered fire-at: the orchestration's clock never goes back."""
    due = max((one.fire_at for one in rows if isinstance(one, TimerRow)), default=0)
    return max(now, row.last_turn_at + 1, due + 1)


def _seqs(rows: Iterable[Row], kind: type[Row]) -> tuple[int, ...]:
    return tuple(one.seq for one in rows if isinstance(one, kind))
