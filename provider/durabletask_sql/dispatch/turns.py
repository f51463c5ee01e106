"""Turns at executors: handing them out, taking their answers, giving them back.

What may run is memory's decision, what an answer means is `turn`'s, what is durable is the owner loop's.
"""

import asyncio
import logging
from collections.abc import Awaitable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

from durabletask_sql.clock import Clock
from durabletask_sql.dispatch.delays import Delays
from durabletask_sql.dispatch.executors import Seat, SeatFor, Seats, Takers, prefer_another, roomiest
from durabletask_sql.dispatch.failures import Failures, Refused, cause_of, row_keys
from durabletask_sql.dispatch.ports import BoardPorts, Carefully
from durabletask_sql.dispatch.rests import Rests, is_vain
from durabletask_sql.ids import new_execution_id, partition_of
from durabletask_sql.model.checkpoints import Blame, Discard, Outcome, OutcomeKind, TurnCheckpoint
from durabletask_sql.model.deliveries import RowKey
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.partitions.filling import text_bytes
from durabletask_sql.partitions.instance import InstanceMemory
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.partitions.suspects import COUNTED_FAILURES, Standing, Suspicion, is_out, parted
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.work import Executor, Needs, TurnItem, WorkKind
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.assembly import HEAD_BYTES, assemble_answer
from durabletask_sql.protocol.framing import largest_frame
from durabletask_sql.protocol.texts import read_refs
from durabletask_sql.turn.apply import Turn, apply, end_pending
from durabletask_sql.turn.intake import Intake, TurnLimits, take
from durabletask_sql.turn.limits import within_limits
from durabletask_sql.turn.rewind import shown

_log = logging.getLogger(__name__)

_LOOK_AT_ONCE = 200


@dataclass(slots=True, eq=False)
class OpenTurn:
    """A turn that an executor holds. It is stale once the instance's memory has another turn, or none."""

    token: str
    key: InstanceKey
    mem: InstanceMemory
    intake: Intake
    past: tuple[bytes, ...]
    executor: Executor
    standing: Standing
    began: float  # in seconds of the monotonic clock
    is_suspect: bool = False
    parts: list[pb.OrchestratorResponse] = field(default_factory=list)

    @property
    def is_current(self) -> bool:
        """Whether its answer would still be taken."""
        return self.mem.turn is self.intake

    @property
    def item(self) -> InstanceKey:
        """What identifies the item, whatever delivery of it."""
        return self.key

    @property
    def rows(self) -> list[RowKey]:
        """Which rows it consists of."""
        return row_keys(self.key, self.intake.consumed, self.intake.consumed_timers)


class TurnSeats(Seats[OpenTurn]):
    """The executors that run turns. `host` takes first what nobody else takes: it may need no executor at all."""

    def __init__(self, suspicion: Suspicion) -> None:
        """Begin with nobody connected."""
        super().__init__(WorkKind.ORCHESTRATION, suspicion)
        self.host: Takers[OpenTurn] = Takers(frozenset())

    def group_of(self, mem: InstanceMemory) -> Takers[OpenTurn]:
        """Return who takes the next turn of an instance."""
        row = mem.row
        if row is None:
            return self.host
        takers = self.takers(row.name, row.version)
        if mem.needs is not None:
            takers = self.takers_of(row.name, row.version, mem.needs)
        if mem.is_suspect:
            takers = self.suspects(takers, accused=mem.is_accused)
        return takers if takers or mem.needs_executor else self.host


class Turns:
    """The turns of one task hub that are ready or out."""

    def __init__(self, hub: TaskHub, host_id: int, memory: Memory, seats: TurnSeats, clock: Clock,
                 ports: BoardPorts, limits: TurnLimits) -> None:
        """Work on this memory, whose ready instances are sorted by `seats`."""
        self._hub = hub
        self._host_id = host_id
        self._memory = memory
        self.seats = seats
        self._clock = clock
        self._ports = ports
        self._limits = limits
        self._delays = Delays(memory, ports.pump)
        self._rests = Rests(memory, ports.pump)
        self._failures = Failures(seats.suspicion, self._delays, ports)
        self._dispatches = 0

    # Out

    def pump(self) -> None:
        """Hand out whatever can be handed out now."""
        self._do_alone()
        self.hand_out(roomiest)
        if self._memory.filling.has_work():
            self._ports.wants_work()

    def hand_out(self, seat_for: SeatFor[OpenTurn]) -> None:
        """Hand out what there is an executor for."""
        take_ready = self._memory.ready.take
        while (found := take_ready(seat_for)) is not None:
            self._begin(*found)

    def _do_alone(self) -> None:
        """Look at what no executor takes, a slice at a time: the host may end or discard it by itself."""
        ready = self._memory.ready
        alone = list(islice(ready.waiting_for(self.seats.host), _LOOK_AT_ONCE))
        for mem in alone:
            ready.remove(mem)
            self._begin(mem, None)
        if len(alone) == _LOOK_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._ports.pump)

    def _begin(self, mem: InstanceMemory, seat: Seat[OpenTurn] | None) -> None:
        """Take the next turn of an instance. Whatever goes wrong with that concerns this instance alone."""
        try:
            self._take_up(mem, seat)
        except Exception as error:
            self._fail_here(mem, error)

    def _fail_here(self, mem: InstanceMemory, error: Exception) -> None:
        """The work item of a turn cannot be made: its messages fail, those that would be in it as far as one knows."""
        mem.take_back()
        rows, timers = parted(mem.runnable(), mem.due()) if mem.marked else (mem.runnable(), mem.due())
        row = mem.row
        self._failures.refuse(mem, Refused(
            mem.key, [queued.seq for queued in rows], [timer.seq for timer in timers], None,
            cause_of(error, mem.failures),
            Blame(row.execution_id, row.name, row.version, attempts=COUNTED_FAILURES) if row is not None else Blame()))

    def _take_up(self, mem: InstanceMemory, seat: Seat[OpenTurn] | None) -> None:
        self._memory.touch(mem)
        row = mem.row
        if row is None:
            self._discard(mem, tuple(queued.seq for queued in mem.rows), tuple(timer.seq for timer in mem.timers))
            return
        intake = self._take(mem, row)
        if not intake.runs:
            if intake.discarded or intake.discarded_timers:
                self._discard(mem, intake.discarded, intake.discarded_timers)
            else:
                self._memory.waits_for_start(mem)
                self._ports.wants_work()
            return
        if intake.ends_pending:
            mem.turn = intake
            self._ports.submit(end_pending(Turn(row, (), intake), self._clock.now(), self._hub.partition_count), None)
        elif seat is None:
            mem.needs_executor = True
            self._memory.ready.add(mem, first=True)
        elif mem.marked and self._is_out(mem, intake):
            mem.turn = intake
            self._failures.set_aside_lost(mem, intake.consumed, intake.consumed_timers,
                                          Blame(row.execution_id, row.name, row.version))
        elif self._suits(mem, intake, seat):
            if mem.refs:
                self._memory.filling.want(mem)  # its large texts first
            else:
                self._hand_out(mem, intake, seat)

    def _take(self, mem: InstanceMemory, row: InstanceRow) -> Intake:
        now, rows, timers = self._clock.now(), mem.runnable(), mem.due()
        intake = take(row, rows, timers, now, self._limits)
        # The end of what has not begun is the host's, suspect or not.
        return intake if not mem.marked or intake.ends_pending else take(row, *parted(rows, timers), now, self._limits)

    @staticmethod
    def _is_out(mem: InstanceMemory, intake: Intake) -> bool:
        """Tell whether the rows of a turn have failed so often that they are to be set aside."""
        return any(is_out(row.failed) for row in mem.rows if row.seq in intake.consumed) or any(
            is_out(timer.failed) for timer in mem.timers if timer.seq in intake.consumed_timers)

    def _hand_out(self, mem: InstanceMemory, intake: Intake, seat: Seat[OpenTurn]) -> None:
        row = mem.row
        assert row is not None
        if mem.abandons:
            seat = prefer_another(self.seats.group_of(mem), seat, mem.abandoned_by)
        mem.turn = intake
        self._dispatches += 1
        token = f"turn:{self._hub.hub_id}:{self._host_id:x}:{self._dispatches}"
        past = shown(row, mem.history)
        opened = OpenTurn(token, mem.key, mem, intake, past, seat.executor, seat.standing, self._clock.monotonic(),
                          mem.is_suspect)
        self.seats.open(seat, opened)
        item = TurnItem(token, mem.key, row.execution_id, row.name, row.version, past, intake.new_events, row.trace)
        if self.seats.suspicion.careful:
            self._ports.deliver(Carefully(opened, lambda: opened.is_current and self.seats.find(token) is opened,
                                          lambda: self._offer(opened, item), lambda: self.seats.close(token)))
        else:
            self._offer(opened, item)

    def _offer(self, opened: OpenTurn, item: TurnItem) -> None:
        try:
            opened.executor.offer_turn(item)
        except Exception as error:
            self._close(opened.token)
            self._fail_here(opened.mem, error)

    def _suits(self, mem: InstanceMemory, intake: Intake, seat: Seat[OpenTurn]) -> bool:
        """Tell whether an executor can be sent a turn; if not, put the instance where those that can look."""
        if mem.is_suspect and not self.seats.suspicion.may_take(seat.standing, accused=mem.is_accused):
            self._memory.ready.add(mem, first=True)  # it became a suspect while it waited among others
            return False
        profile = seat.profile
        echo = not profile.echoes_tokens and self.seats.is_open_without_token(mem.key)
        limit = profile.message_bytes
        texts = text_bytes(mem.refs) if mem.refs else 0
        if not echo and (limit is None or mem.history_size + texts + len(intake.new_events) + HEAD_BYTES <= limit):
            return True
        needs = needs_of(mem, intake, echo=echo, limit=limit or 0)
        if profile.meets(needs):
            return True
        mem.needs, mem.needs_executor = needs, True
        if not echo and not self.seats.group_of(mem):
            _log.error("instance %r is set aside until a worker connects that can take its next turn: %s",
                       mem.key.instance_id, too_large(needs.message_bytes))
        self._memory.ready.add(mem, first=True)
        return False

    def _discard(self, mem: InstanceMemory, seqs: tuple[int, ...], timers: tuple[int, ...]) -> None:
        """Delete rows that no turn will ever take; nothing else of the instance runs until that is done."""
        mem.blocked = True
        done = self._ports.submit(Discard(mem.key, seqs, timers), None)
        done.add_done_callback(lambda _: None if mem.refusals else self._delays.end(mem))

    def unserved(self) -> Iterable[tuple[str, str | None, bool]]:
        """Return name, version and whether it is its size, of each instance that waits here and nobody takes."""
        for mem in self._memory.ready.waiting_for(self.seats.nobody):
            if mem.row is not None and (mem.needs is None or not mem.needs.echo):
                yield mem.row.name, mem.row.version, mem.needs is not None

    def past_of(self, instance_id: str, execution_id: str | None) -> tuple[bytes, ...] | None:
        """Return the history (framed) that the turn which is out was made from; None when none is out."""
        turn = self.seats.find(self.seats.token_of(self._key(instance_id)))
        if turn is None or turn.mem.row is None or execution_id not in (None, turn.mem.row.execution_id):
            return None
        return turn.past

    # Back

    def take_back(self, turns: Sequence[OpenTurn], marked: Collection[object]) -> None:
        """Put the turns of an executor that went away in front of all others, those that are marked as suspects behind."""
        for turn in reversed(turns):
            self._forget_silence(turn)
            if turn.is_current:
                mem = turn.mem
                if turn in marked:
                    mem.lost_by = turn.executor.name
                    self._failures.mark(mem, self._real(turn), turn.intake.consumed_timers)
                self._memory.put_back(mem, first=not mem.is_suspect)

    def complete(self, answer: pb.OrchestratorResponse) -> Awaitable[object] | None:
        """Take the answer to a turn; return what is done when its outcome is durable, None if it never will be.

        A part of an answer waits for the last one.
        """
        token = answer.completionToken or self.seats.token_of(self._key(answer.instanceId))
        if answer.isPartial:
            if (begun := self.seats.find(token)) is not None:
                begun.parts.append(answer)
            return None
        turn = self._close(token)
        if turn is None or not turn.is_current or turn.mem.row is None:
            _log.info("the answer to a turn of instance %r came too late or twice and was dropped (token %r)",
                      answer.instanceId, token)
            self._ports.pump()
            return None
        try:
            checkpoint = self._checkpoint(turn, turn.mem.row, answer)
        except Exception as error:
            return self._fail_delivery(turn, error)
        if any(seq in self._ports.in_flight for seq in turn.intake.consumed):
            return self._commit_settled(turn, checkpoint)
        return self._commit(turn, checkpoint)

    async def _commit_settled(self, turn: OpenTurn, checkpoint: TurnCheckpoint) -> None:
        """Commit the outcome of a turn that ran ahead of the commits of its messages."""
        if await self._is_settled(turn):
            await self._commit(turn, checkpoint)
        else:
            self._ports.pump()

    def _commit(self, turn: OpenTurn, checkpoint: TurnCheckpoint) -> asyncio.Future[Outcome]:
        assert turn.mem.row is not None
        if is_vain(turn.mem.row, checkpoint):
            self._rests.begin(turn.mem, self._clock.monotonic() - turn.began)
        real = self._real(turn)
        done = self._ports.submit(checkpoint if real == checkpoint.consumed else replace(checkpoint, consumed=real), None)
        done.add_done_callback(partial(self._committed, turn))
        self._ports.pump()
        return done

    def _committed(self, turn: OpenTurn, done: asyncio.Future[Outcome]) -> None:
        """Note what became of a turn."""
        if done.cancelled():
            return
        outcome = done.result()
        if outcome.kind is OutcomeKind.COMMITTED:
            self.seats.suspicion.completed(turn.standing, turn.item)
        elif outcome.kind is OutcomeKind.LOST:
            _log.info("a turn of instance %r was lost and runs again: %s", turn.key.instance_id, outcome.cause)

    def _checkpoint(self, turn: OpenTurn, row: InstanceRow, answer: pb.OrchestratorResponse) -> TurnCheckpoint:
        if turn.parts or answer.chunkIndex.value:
            answer = assemble_answer((*turn.parts, answer))
        answer = within_limits(row, answer, self._limits.payload_bytes)
        return apply(Turn(row, tuple(turn.mem.history), turn.intake), answer.actions, answer, self._clock.now(),
                     new_execution_id, self._hub.partition_count)

    def _close(self, token: str) -> OpenTurn | None:
        turn = self.seats.close(token)
        if turn is not None and not turn.executor.profile.echoes_tokens:
            self._forget_silence(turn)
        return turn

    def _forget_silence(self, turn: OpenTurn) -> None:
        """The key of a turn is free again on executors that answer without a token."""
        mem = self._memory.instance(turn.key)
        if mem is not None and mem.needs is not None and mem.needs.echo:
            mem.needs = replace(mem.needs, echo=False)
            self._memory.ready.move(mem)

    async def _is_settled(self, turn: OpenTurn) -> bool:
        """Wait for the commits of the messages that a turn ran on ahead of them; False: it was taken back."""
        for seq in turn.intake.consumed:
            commit = self._ports.in_flight.get(seq)
            if commit is not None:
                await asyncio.shield(commit)
        return turn.is_current

    @staticmethod
    def _real(turn: OpenTurn) -> tuple[int, ...]:
        """Return the sequences that a turn consumes, those that it saw ahead of their commit included."""
        settled = turn.mem.settled
        return tuple(settled.get(seq, seq) for seq in turn.intake.consumed) if settled else turn.intake.consumed

    async def _fail_delivery(self, turn: OpenTurn, error: Exception) -> None:
        """An answer that cannot be carried out: the messages fail, whatever they were marked with before."""
        row, mem = turn.mem.row, turn.mem
        if not await self._is_settled(turn) or row is None:
            return
        done = self._failures.refuse(mem, Refused(
            turn.item, self._real(turn), turn.intake.consumed_timers, turn.standing, cause_of(error, mem.failures),
            Blame(row.execution_id, row.name, row.version, turn.executor.name, COUNTED_FAILURES)))
        self._ports.pump()
        if done is not None:
            await done

    def abandon(self, token: str) -> None:
        """Take a turn back; it is offered again after a delay that grows with each abandon in a row."""
        turn = self._close(token)
        if turn is not None and turn.is_current:
            self._delays.give_back(turn.mem, turn.executor)

    def _key(self, instance_id: str) -> InstanceKey:
        return InstanceKey(partition_of(instance_id, self._hub.partition_count), instance_id)


def needs_of(mem: InstanceMemory, intake: Intake, *, echo: bool, limit: int) -> Needs:
    """Return what a turn asks of its executor: its size as one message, and with its history streamed in pieces.

    A piece holds at least one event; only those in parts above `limit`, and those whose texts were taken out, can be
    too large.
    """
    new, texts = len(intake.new_events), [ref.size for packed in mem.refs.values() for ref in read_refs(packed)]
    piece = max((new, largest_frame(mem.history, limit), *texts))
    return Needs(mem.history_size + sum(texts) + new + HEAD_BYTES, piece + HEAD_BYTES, echo)


def too_large(size: int) -> str:
    """Return why an item waits that is larger than any worker at hand can read."""
    return (f"its work item has about {size} bytes, more than any connected worker that takes it reads in one message: "
            "keep large data elsewhere and pass references, continue as new to shorten a history, or connect a worker "
            "that streams histories (.NET) or reads messages of any size (JavaScript)")
