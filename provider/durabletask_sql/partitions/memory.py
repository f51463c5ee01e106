"""The owner's memory of all partitions of a task hub that it owns: a state machine without IO.

It is told what was claimed, read and committed, and says which instances may run and what has to be loaded. The
database is the truth; what is here holds only under the epochs it was read with, and goes with them. The rules are
those of the queue protocol (ARCHITECTURE.md, "How messages are found").
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from durabletask_sql.ids import is_entity
from durabletask_sql.model.checkpoints import EntityCheckpoint, TurnCheckpoint
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.messages import QueueRow, TimerRow
from durabletask_sql.partitions.ceilings import Ceilings
from durabletask_sql.partitions.draining import Draining
from durabletask_sql.partitions.entity import EntityMemory
from durabletask_sql.partitions.eviction import AnyMemory, choose_victims
from durabletask_sql.partitions.filling import Filling
from durabletask_sql.partitions.instance import InstanceMemory
from durabletask_sql.partitions.lanes import Lanes
from durabletask_sql.partitions.limits import MemoryLimits, Wanted
from durabletask_sql.partitions.loads import Loads
from durabletask_sql.partitions.window import TimerWindow
from durabletask_sql.ports.committer import FreshEntity, FreshInstance, HollowHistory


class Memory:
    """Instances, ready queue and timer window of the partitions that this host owns."""

    def __init__(self, limits: MemoryLimits, ready: Lanes[InstanceMemory, Any],
                 entities: Lanes[EntityMemory, Any]) -> None:
        """Own nothing; `ready` and `entities` are where instances and entities that may run wait for an executor."""
        self.limits = limits
        self.ready = ready
        self.entities = entities
        self.epochs: dict[int, int] = {}
        self.window = TimerWindow()
        self.filling = Filling(limits.history_bytes)
        self._instances: OrderedDict[InstanceKey, AnyMemory] = OrderedDict()
        self.draining = Draining(self._instances, self.consider)
        self.messages: dict[int, int] = {}  # of each partition
        self.history_bytes = 0
        self._loads = Loads()
        self.ceilings = Ceilings(self._instances)
        self.owned_anew: set[int] = set()
        self.early: dict[InstanceKey, None] = {}  # which have messages before their start is due
        self.wants_timers = True
        self.entered = 0

    # Ownership

    def own(self, epochs: Mapping[int, int]) -> None:
        """Own these partitions under these epochs; one whose epoch changed starts from nothing."""
        for partition, epoch in epochs.items():
            if self.epochs.get(partition) != epoch:
                self.drop(partition)
                self.epochs[partition] = epoch
                self.messages[partition] = 0
                self._loads.scans.add(partition)
                self.wants_timers = True
                self.owned_anew.add(partition)

    def drop(self, partition: int) -> None:
        """Forget everything of a partition that is not ours any more, at once."""
        self.epochs.pop(partition, None)
        self.draining.partitions.discard(partition)
        self.messages.pop(partition, None)
        self._loads.drop(partition)
        self.window.drop_partition(partition)
        for key in [key for key in self._instances if key.partition == partition]:
            self._leave(self._instances[key])

    # What is there

    def __len__(self) -> int:
        """Return how many instances are in memory."""
        return len(self._instances)

    def find(self, key: InstanceKey) -> AnyMemory | None:
        """Return what is known of an instance or an entity."""
        return self._instances.get(key)

    def instance(self, key: InstanceKey) -> InstanceMemory | None:
        """Return what is known of an orchestration instance."""
        mem = self._instances.get(key)
        return mem if isinstance(mem, InstanceMemory) else None

    def __iter__(self) -> Iterator[AnyMemory]:
        """Yield what is in memory, longest unused first."""
        return iter(self._instances.values())

    def room(self, partition: int) -> int:
        """Return how many more messages of a partition may enter."""
        if len(self._instances) >= self.limits.instances:
            return 0
        return max(0, self.limits.partition_messages - self.messages.get(partition, 0))

    def may_enter(self, key: InstanceKey, messages: int, size: int) -> bool:
        """Tell whether so many new messages for an instance may be written as held by this host."""
        if key.partition not in self.epochs:
            return False
        mem = self._instances.get(key)
        if mem is None:
            return self.room(key.partition) >= messages
        return (not mem.is_full and len(mem.rows) + messages <= self.limits.share_messages
                and mem.size + size <= self.limits.share_bytes)

    # What is wanted

    def wake(self, keys: Iterable[InstanceKey]) -> None:
        """Note that somebody wrote rows for these instances that nobody holds."""
        for key in keys:
            if key.partition not in self.epochs:
                continue
            mem = self._instances.get(key)
            if mem is None:
                if self.room(key.partition):
                    self._loads.fresh[key] = None
                else:
                    self._loads.scans.add(key.partition)
            elif mem.stale or not mem.known:
                self._loads.fresh[key] = None
            else:
                self._loads.claims[key] = None

    def scan(self, partitions: Iterable[int]) -> None:
        """Note that these partitions may have rows that nobody holds."""
        self._loads.scans.update(partition for partition in partitions if partition in self.epochs)

    def take_due(self, now: int) -> bool:
        """Take up due timers: each instance's rows are claimed before the timer takes its place behind them."""
        due = self.window.take_due(now)
        for timer in due:
            self._loads.wait(timer)
            self.wake((timer.key,))
            if timer.key not in self._loads.claims:
                self._loads.fresh[timer.key] = None
        return bool(due)

    def take_wanted(self) -> Wanted:
        """Return and forget what has to be loaded now. The reply must be merged before the next one is asked for."""
        return self._loads.take(self.room, self._instances.get)

    def wants_anything(self) -> bool:
        """Tell whether `take_wanted` would return something."""
        return self._loads.has_any(self.room, self._instances.get)

    # What came back

    def merge_rows(self, rows: Iterable[QueueRow], read: Collection[InstanceKey] = ()) -> None:
        """Let claimed or self-written rows enter. An instance that is not in memory has to be read afresh first.

        Those in `read` were read after these rows were found: nothing about their rows is news.
        """
        for row in rows:
            if row.key.partition not in self.epochs:
                continue
            mem = self._remember(row.key)
            if mem.enter(row):
                self.entered += 1
                self.messages[row.key.partition] += 1
                self._look_again(mem)
            if row.key not in read and (not mem.known or mem.is_news(row)):
                self.read_afresh(row.key)
            self.consider(mem)

    def merge_ceilings(self, ceilings: Mapping[InstanceKey, int | None]) -> None:
        """Set the ceilings of instances as a claim or a look found them."""
        for key, ceiling in ceilings.items():
            if (mem := self._instances.get(key)) is not None:
                self.ceilings.set(mem, ceiling)
                self._look_again(mem)
                self.consider(mem)

    def merge_fresh(self, fresh: Iterable[FreshInstance | FreshEntity], rows: frozenset[int] = frozenset()) -> None:
        """Replace what was known by what was read, with these rows; an instance's older ones that are not there leave."""
        for found in fresh:
            if found.key.partition not in self.epochs:
                continue
            mem = self._remember(found.key)
            mem.known, mem.stale = True, False
            if isinstance(mem, InstanceMemory) and isinstance(found, FreshInstance):
                row = mem.row = found.row
                self.remove(mem, self._loads.gone(found.key, rows))
                self._set_history(mem, found.history, found.refs)
                self.filling.release(found.key)
                if row is not None and (row.rewinds or (row.scheduled_at is not None and not row.history_count)):
                    self.wants_timers = True  # its start is among the delayed messages, or what a rewind armed again
                self.consider(mem)
            elif isinstance(mem, EntityMemory) and isinstance(found, FreshEntity):
                before = mem.history_size
                mem.row, mem.hidden, mem.idle = found.row, found.hidden, False
                self.history_bytes += mem.history_size - before
                self.remove(mem, mem.waiting())  # what it can run is told by its rows, which come next
            if found.key in self._loads.lost:
                self.read_afresh(found.key)

    def _remember(self, key: InstanceKey) -> AnyMemory:
        if (mem := self._instances.get(key)) is None:
            mem = self._instances[key] = EntityMemory(key) if is_entity(key.instance_id) else InstanceMemory(key)
        return mem

    def merge_timers(self, rows: Iterable[TimerRow]) -> None:
        """Let claimed or self-written timers into the window."""
        self.window.add(row for row in rows if row.key.partition in self.epochs
                        and not self._loads.has_taken_up(row, self._instances.get(row.key)))

    def settle_load(self, fresh: Iterable[InstanceKey]) -> None:
        """Give the due timers of a load their place behind the rows that it claimed; let go of what is not there."""
        for key, timers in self._loads.settle().items():
            if (mem := self._instances.get(key)) is not None:
                known = {timer.seq for timer in mem.timers}
                mem.timers += [timer for timer in timers if timer.seq not in known]
                mem.marked |= any(timer.failed for timer in timers)
                self.consider(mem)
        for key in fresh:
            if (mem := self._instances.get(key)) is not None and mem.is_idle and mem.is_over:
                self._leave(mem)
        self._evict()

    def merge_child(self, row: InstanceRow) -> None:
        """Take in an orchestration as it was created: it has no history and need not be read.

        What others wrote for it meanwhile is claimed.
        """
        mem = self._remember(row.key)
        assert isinstance(mem, InstanceMemory)
        self._forget_rows(mem)
        mem.row, mem.timers, mem.known, mem.stale = row, [], True, False
        self._set_history(mem, (), {})
        self.ceilings.set(mem, None)
        if row.key in self._loads.fresh:
            del self._loads.fresh[row.key]
            self._loads.claims[row.key] = None

    def read_afresh(self, key: InstanceKey) -> None:
        """Have an instance read again before its next turn; its rows in memory stay."""
        if (mem := self._instances.get(key)) is not None:
            mem.stale = True
            self._lanes_of(mem).remove(mem)
        self._loads.fresh[key] = None

    # Turns

    def touch(self, mem: AnyMemory) -> None:
        """Note that an instance is in use: those unused longest leave first."""
        self._instances.move_to_end(mem.key)

    def filled(self, hollow: HollowHistory, history: tuple[bytes, ...] | None) -> None:
        """Take in a history whose texts were fetched; None: they are gone, so what is known of the instance is old."""
        mem = self.instance(hollow.key)
        if mem is None or not self.filling.is_current(hollow):
            return
        if history is None:
            self.filling.release(mem.key)
            self.read_afresh(mem.key)
            return
        self._set_history(mem, history, {})
        self.consider(mem)

    def waits_for_start(self, mem: InstanceMemory) -> None:
        """Note that an instance has rows but no start row: read it afresh, once, unless its start is not due yet."""
        if mem.is_early:
            self.early[mem.key] = None
        elif not mem.startless_read:
            self.read_afresh(mem.key)
            mem.startless_read = True

    def put_back(self, mem: AnyMemory, *, first: bool = False) -> None:
        """Make an instance ready again whose turn was taken back."""
        mem.take_back()
        if first and mem.can_run and mem.lane is None and self.draining.allows(mem):
            self._lanes_of(mem).add(mem, first=True)
        else:
            self.consider(mem)
        if mem.stale:
            self._loads.fresh[mem.key] = None

    def unblock(self, mem: AnyMemory) -> None:
        """End the delay that kept an instance from running."""
        mem.blocked = False
        self.consider(mem)

    def lose(self, key: InstanceKey) -> None:
        """Forget what is known of an instance whose fence was lost, and have it read afresh."""
        self._loads.lose(key)
        if (mem := self._instances.get(key)) is None:
            return
        self._forget_rows(mem)
        mem.forget()
        self.filling.release(key)
        self.ceilings.set(mem, None)
        self.read_afresh(key)

    def committed(self, checkpoint: TurnCheckpoint) -> None:
        """Follow a turn that was committed."""
        mem = self.instance(checkpoint.key)
        if mem is None:
            return
        before = mem.history_size
        mem.follow(checkpoint)
        self.history_bytes += mem.history_size - before
        if checkpoint.ended or checkpoint.continued_from is not None:
            self.window.drop_instance(checkpoint.key)
            self._loads.forget_timers(checkpoint.key)
            mem.timers = []
        if checkpoint.ended:
            self._forget_rows(mem)
            self.ceilings.set(mem, None)
        else:
            self.remove(mem, frozenset(checkpoint.consumed + checkpoint.discarded),
                        frozenset(checkpoint.consumed_timers))
        self.consider(mem)
        if mem.is_idle:
            self.filling.release(mem.key)
        if checkpoint.ended:
            self._leave(mem)
        self._evict()

    def stepped(self, checkpoint: EntityCheckpoint) -> None:
        """Follow a step of an entity that was committed."""
        mem = self._instances.get(checkpoint.key)
        if not isinstance(mem, EntityMemory):
            return
        before = mem.history_size
        mem.follow(checkpoint)
        self.history_bytes += mem.history_size - before
        self.remove(mem, frozenset(checkpoint.consumed), frozenset(checkpoint.consumed_timers))
        self.remove(mem, mem.waiting())
        self.consider(mem)
        if mem.is_over and mem.is_idle:
            self._leave(mem)
        self._evict()

    def discarded(self, key: InstanceKey, seqs: Iterable[int], timers: Iterable[int]) -> None:
        """Follow rows that were deleted because no turn will ever take them."""
        if (mem := self._instances.get(key)) is not None:
            mem.turn, mem.refusals = None, 0
            self.remove(mem, frozenset(seqs), frozenset(timers))
            self.consider(mem)
            if mem.row is None and mem.is_idle:
                self._leave(mem)
            self._evict()

    def _set_history(self, mem: InstanceMemory, history: Sequence[bytes], refs: Mapping[int, bytes]) -> None:
        self.history_bytes -= mem.history_size
        mem.replace_history(history, refs)
        self.history_bytes += mem.history_size

    def remove(self, mem: AnyMemory, seqs: frozenset[int], timers: frozenset[int] = frozenset()) -> None:
        """Take rows and timers of an instance out of memory."""
        before = len(mem.rows)
        mem.remove(seqs, timers)
        if mem.key.partition in self.messages:
            self.messages[mem.key.partition] -= before - len(mem.rows)

    def _forget_rows(self, mem: AnyMemory) -> None:
        self.remove(mem, frozenset(row.seq for row in mem.rows))

    def consider(self, mem: AnyMemory) -> None:
        """Make an instance ready, or not, as its state says."""
        self.ceilings.note(mem)  # what an entity cannot keep lowers it
        if isinstance(mem, EntityMemory) and mem.lacks_hidden:
            self.read_afresh(mem.key)
        if not (mem.can_run and self.draining.allows(mem)):
            self._lanes_of(mem).remove(mem)
        elif mem.lane is None:
            self._lanes_of(mem).add(mem)

    def _look_again(self, mem: AnyMemory) -> None:
        """Have the host look once more whether it can do something for an instance alone."""
        if mem.needs_executor and mem.may_need_none:
            mem.needs_executor = False
            self._lanes_of(mem).move(mem)

    def _lanes_of(self, mem: AnyMemory) -> Lanes[Any, Any]:
        return self.entities if isinstance(mem, EntityMemory) else self.ready

    def _evict(self) -> None:
        """Let idle instances leave, longest unused first, once no other may enter or there is too much history."""
        for mem in choose_victims(self._instances, self.history_bytes, self.limits, self._loads.awaits):
            self._leave(mem)

    def let_go(self, mem: AnyMemory) -> None:
        """Let an instance leave if nothing of it is here and nothing waits for it."""
        if mem.is_idle and not self._loads.awaits(mem.key):
            self._leave(mem)

    def _leave(self, mem: AnyMemory) -> None:
        self.history_bytes -= mem.history_size
        del self._instances[mem.key]
        mem.turn = None  # an answer to a turn that is out belongs to what is forgotten
        self.filling.release(mem.key)
        self._lanes_of(mem).remove(mem)
        self._loads.claims.pop(mem.key, None)
        self.ceilings.leave(mem.key)
        self.early.pop(mem.key, None)
