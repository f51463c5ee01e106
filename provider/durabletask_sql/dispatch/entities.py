"""Entities at executors: handing batches out, taking their answers, giving them back.

What the next step of an entity is, `turn.entity` decides. Steps that need no executor (locks) are committed at once,
whoever is connected; entities whose next step is a batch wait for an executor that takes their name.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from durabletask_sql.clock import Clock
from durabletask_sql.dispatch.delays import Delays
from durabletask_sql.dispatch.executors import Seat, SeatFor, Seats, Takers, prefer_another, roomiest
from durabletask_sql.dispatch.failures import Failures, Refused, cause_of, row_keys
from durabletask_sql.dispatch.ports import BoardPorts, Carefully
from durabletask_sql.ids import new_execution_id
from durabletask_sql.model.checkpoints import Blame, EntityCheckpoint, OutcomeKind, Quarantine
from durabletask_sql.model.deliveries import RowKey
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.partitions.entity import EntityMemory
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.partitions.suspects import COUNTED_FAILURES, Standing, Suspicion, is_out
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.work import EntityItem, Executor, Needs, WorkKind
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.assembly import HEAD_BYTES
from durabletask_sql.turn.entity.apply import EntityTurn, Surroundings, apply_batch, rows_of
from durabletask_sql.turn.entity.intake import Batch, BatchLimits, Inbox, take
from durabletask_sql.turn.limits import failed_batch, oversize_batch

_log = logging.getLogger(__name__)

_LOOK_AT_ONCE = 200


@dataclass(frozen=True, slots=True, eq=False)
class OpenBatch:
    """A batch that an executor holds. It is stale once the entity's memory has another step, or none."""

    token: str
    key: InstanceKey
    mem: EntityMemory
    batch: Batch
    executor: Executor
    standing: Standing
    is_suspect: bool = False

    @property
    def is_current(self) -> bool:
        """Whether its answer would still be taken."""
        return self.mem.turn is self.batch

    @property
    def item(self) -> InstanceKey:
        """What identifies the item, whatever delivery of it."""
        return self.key

    @property
    def rows(self) -> list[RowKey]:
        """Which rows it consists of."""
        return row_keys(self.key, *rows_of(self.batch.operations))


class EntitySeats(Seats[OpenBatch]):
    """The executors that run batches. `host` looks first: a step may need no executor at all."""

    def __init__(self, suspicion: Suspicion) -> None:
        """Begin with nobody connected."""
        super().__init__(WorkKind.ENTITY, suspicion)
        self.host: Takers[OpenBatch] = Takers(frozenset())

    def group_of(self, mem: EntityMemory) -> Takers[OpenBatch]:
        """Return who takes the next step of an entity."""
        if not mem.needs_executor:
            return self.host
        takers = self.takers(mem.name, None) if mem.needs is None else self.takers_of(mem.name, None, mem.needs)
        return self.suspects(takers, accused=mem.is_accused) if mem.is_suspect else takers


class Entities:
    """The entities of one task hub that are ready, or out."""

    def __init__(self, hub: TaskHub, host_id: int, memory: Memory, seats: EntitySeats, clock: Clock,
                 ports: BoardPorts, payload_bytes: int) -> None:
        """Work on this memory, whose ready entities are sorted by `seats`."""
        self._hub = hub
        self._host_id = host_id
        self._memory = memory
        self.seats = seats
        self._clock = clock
        self._ports = ports
        self._payload_bytes = payload_bytes
        self._limits = BatchLimits()
        self._delays = Delays(memory, ports.pump)
        self._failures = Failures(seats.suspicion, self._delays, ports)
        self._dispatches = 0

    # Out

    def pump(self) -> None:
        """Do what needs no executor, a slice at a time, and hand out whatever can be handed out now."""
        ready = self._memory.entities
        alone = list(islice(ready.waiting_for(self.seats.host), _LOOK_AT_ONCE))
        for mem in alone:
            ready.remove(mem)
            self._begin(mem, None)
        if len(alone) == _LOOK_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._ports.pump)
        self.hand_out(roomiest)

    def hand_out(self, seat_for: SeatFor[OpenBatch]) -> None:
        """Hand out what there is an executor for."""
        take_ready = self._memory.entities.take
        while (found := take_ready(seat_for)) is not None:
            self._begin(*found)

    def unserved(self) -> Iterable[tuple[str, None, bool]]:
        """Return name, no version, and whether it is its size, of each entity that waits here and nobody takes."""
        return ((mem.name, None, mem.needs is not None)
                for mem in self._memory.entities.waiting_for(self.seats.nobody))

    def _begin(self, mem: EntityMemory, seat: Seat[OpenBatch] | None) -> None:
        """Take the next step of an entity. Whatever goes wrong with that concerns this entity alone."""
        try:
            self._take_up(mem, seat)
        except Exception as error:
            self._fail_here(mem, error)

    def _fail_here(self, mem: EntityMemory, error: Exception) -> None:
        """The next step of an entity cannot be made: the messages fail that go wrong alone, or else all of them."""
        step = mem.turn
        mem.take_back()
        seqs, timers = rows_of(step.operations) if isinstance(step, Batch) else self._broken(mem)
        self._failures.refuse(mem, Refused(
            mem.key, seqs, timers, None, cause_of(error, mem.failures),
            Blame(name=mem.name, attempts=COUNTED_FAILURES)))

    def _broken(self, mem: EntityMemory) -> tuple[Sequence[int], Sequence[int]]:
        inbox = mem.inbox()
        seqs = [row.seq for row in inbox.rows if self._breaks(replace(inbox, rows=(row,), timers=()))]
        timers = [timer.seq for timer in inbox.timers if self._breaks(replace(inbox, rows=(), timers=(timer,)))]
        if seqs or timers:
            return seqs, timers
        return [row.seq for row in inbox.rows], [timer.seq for timer in inbox.timers]

    def _breaks(self, inbox: Inbox) -> bool:
        try:
            take(inbox, self._clock.now(), self._limits, self._hub.partition_count)
        except Exception:
            return True
        return False

    def _take_up(self, mem: EntityMemory, seat: Seat[OpenBatch] | None) -> None:
        """Hand the next step out, commit it, or have it wait."""
        self._memory.touch(mem)
        step = take(mem.inbox(), self._clock.now(), self._limits_for(mem, seat), self._hub.partition_count)
        if step is None:
            mem.idle = True
            self._memory.consider(mem)
            self._ports.wants_work()
        elif not isinstance(step, Batch):
            if isinstance(step, Quarantine) and not mem.refusals:
                _log.error("entity %r: messages are set aside: %s", mem.key.instance_id, step.cause)
            mem.turn = step
            self._ports.submit(step, None)
        elif seat is None:
            mem.needs_executor = True
            self._memory.entities.add(mem, first=True)
        elif mem.marked and any(is_out(row.failed) for row, _ in step.operations):
            mem.turn = step
            self._failures.set_aside_lost(mem, *rows_of(step.operations), Blame(name=mem.name))
        elif self._suits(mem, step, seat):
            self._hand_out(mem, step, seat)

    def _limits_for(self, mem: EntityMemory, seat: Seat[OpenBatch] | None) -> BatchLimits:
        """A batch has at least one operation, and else no more than its executor can read beside the state."""
        limits = replace(self._limits, operations=1) if mem.singly or mem.is_suspect else self._limits
        if seat is None or seat.profile.message_bytes is None:
            return limits
        room = max(0, seat.profile.message_bytes - mem.state_size - HEAD_BYTES)
        return replace(limits, bytes=min(limits.bytes, room))

    def _suits(self, mem: EntityMemory, batch: Batch, seat: Seat[OpenBatch]) -> bool:
        """Tell whether an executor can be sent a batch; if not, put the entity where those that can look."""
        if mem.is_suspect and not self.seats.suspicion.may_take(seat.standing, accused=mem.is_accused):
            self._memory.entities.add(mem, first=True)  # it became a suspect while it waited among others
            return False
        size = mem.state_size + len(batch.events) + HEAD_BYTES
        needs = Needs(size, size)
        if seat.profile.meets(needs):
            return True
        mem.needs = needs
        if not self.seats.group_of(mem):
            _log.error("entity %r is set aside until a worker connects that can take its next batch of %d bytes: keep "
                       "large data elsewhere and pass references, or connect a worker that reads messages of any size",
                       mem.key.instance_id, size)
        self._memory.entities.add(mem, first=True)
        return False

    def _hand_out(self, mem: EntityMemory, batch: Batch, seat: Seat[OpenBatch]) -> None:
        if mem.abandons:
            seat = prefer_another(self.seats.group_of(mem), seat, mem.abandoned_by)
        mem.turn = batch
        self._dispatches += 1
        token = f"entity:{self._hub.hub_id}:{self._host_id:x}:{self._dispatches}"
        opened = OpenBatch(token, mem.key, mem, batch, seat.executor, seat.standing, mem.is_suspect)
        self.seats.open(seat, opened)
        item = EntityItem(token, mem.key, new_execution_id(), mem.row.state if mem.row is not None else None, batch.events)
        if self.seats.suspicion.careful:
            self._ports.deliver(Carefully(opened, lambda: opened.is_current and self.seats.find(token) is opened,
                                          lambda: self._offer(opened, item), lambda: self.seats.close(token)))
        else:
            self._offer(opened, item)

    def _offer(self, opened: OpenBatch, item: EntityItem) -> None:
        try:
            opened.executor.offer_entity(item)
        except Exception as error:
            self.seats.close(opened.token)
            self._fail_here(opened.mem, error)

    # Back

    def take_back(self, batches: Sequence[OpenBatch], marked: Collection[object]) -> None:
        """Put the entities of an executor that went away in front of all others, those marked as suspects behind."""
        for opened in reversed(batches):
            if opened.is_current:
                mem = opened.mem
                if opened in marked:
                    mem.lost_by = opened.executor.name
                    self._failures.mark(mem, *rows_of(opened.batch.operations))
                self._memory.put_back(mem, first=not mem.is_suspect)

    async def complete(self, answer: pb.EntityBatchResult) -> None:
        """Commit the outcome of a batch; return when it is durable."""
        opened = self.seats.close(answer.completionToken)
        if opened is None or not opened.is_current:
            _log.info("the answer to a batch came too late or twice and was dropped (token %r)", answer.completionToken)
            self._ports.pump()
            return
        try:
            checkpoint = self._checkpoint(opened, answer)
        except Exception as error:
            await self._fail_delivery(opened, error)
            return
        if checkpoint is None:
            opened.mem.singly = len(opened.batch.operations)  # only the one that is at fault must fail
            self._memory.put_back(opened.mem, first=True)
            self._ports.pump()
            return
        done = self._ports.submit(checkpoint, None)
        self._ports.pump()
        outcome = await done
        if outcome.kind is OutcomeKind.COMMITTED:
            self.seats.suspicion.completed(opened.standing, opened.item)
        elif outcome.kind is OutcomeKind.LOST:
            _log.info("a batch of entity %r was lost and runs again: %s", opened.key.instance_id, outcome.cause)

    def _checkpoint(self, opened: OpenBatch, answer: pb.EntityBatchResult) -> EntityCheckpoint | None:
        """Return what a batch's answer comes to; None when it is too large for all of its operations at once."""
        mem, batch = opened.mem, opened.batch
        excess = oversize_batch(answer, self._payload_bytes)
        if excess is not None and len(batch.operations) > 1:
            return None
        if excess is not None:
            answer = failed_batch(mem.key.instance_id, excess)
        around = Surroundings(self._clock.now(), new_execution_id, self._hub.partition_count)
        return apply_batch(EntityTurn(mem.key, mem.row, batch), answer, around)

    async def _fail_delivery(self, opened: OpenBatch, error: Exception) -> None:
        """An answer that cannot be carried out: the operations fail, whatever they were marked with before."""
        mem = opened.mem
        done = self._failures.refuse(mem, Refused(
            opened.item, *rows_of(opened.batch.operations), opened.standing, cause_of(error, mem.failures),
            Blame(name=mem.name, worker=opened.executor.name, attempts=COUNTED_FAILURES)))
        self._ports.pump()
        if done is not None:
            await done

    def abandon(self, token: str) -> None:
        """Take a batch back; it is offered again after a delay that grows with each abandon in a row."""
        opened = self.seats.close(token)
        if opened is not None and opened.is_current:
            self._delays.give_back(opened.mem, opened.executor)
