"""What goes into the next group: pure decisions over the memory and the items that wait.

Decides which instances' new rows enter this host's memory with the commit, and whose ceilings are read.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from durabletask_sql.model.checkpoints import (
    ActivityCompletion,
    EntityCheckpoint,
    Item,
    OrchestrationStart,
    Outcome,
    TurnCheckpoint,
)
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import NewMessage
from durabletask_sql.partitions.memory import Memory

MAX_ITEMS = 256
MAX_BYTES = 4 * 1024 * 1024


@dataclass(slots=True, eq=False)
class Submission:
    """An item on its way to the database, and the future that tells its submitter what became of it."""

    item: Item
    done: asyncio.Future[Outcome]
    provisional: int | None = None  # of its message, when that entered memory before its commit
    refusals: int = 0  # how often the database has refused it

    def settle(self, outcome: Outcome) -> None:
        """Tell the submitter, unless it has heard already or has gone."""
        if not self.done.done():
            self.done.set_result(outcome)

    @property
    def size(self) -> int:
        """Bytes that the item writes, roughly."""
        return item_size(self.item)


def item_size(item: Item) -> int:
    """Return about how many bytes an item writes."""
    if isinstance(item, TurnCheckpoint):
        history = len(item.history.events) if item.history is not None else 0
        return (history + sum(len(message.events) for message in item.messages)
                + sum(len(timer.events) for timer in item.timers) + sum(len(task.event) for task in item.activities)
                + sum(len(child.start.events) for child in item.children) + len(item.output or ""))
    if isinstance(item, EntityCheckpoint):
        state = len(item.row.state or "") if item.row is not None else 0
        return (state + sum(len(message.events) for message in item.messages)
                + sum(len(timer.events) for timer in item.timers) + sum(len(child.start.events) for child in item.children))
    if isinstance(item, OrchestrationStart):
        return len(item.child.start.events)
    if isinstance(item, ActivityCompletion):
        return len(item.message.events)
    return 0


def take_group(pending: list[Submission]) -> list[Submission]:
    """Remove and return the oldest submissions that fit into one group; one that is too large goes alone."""
    size = count = 0
    for submission in pending:
        if count == MAX_ITEMS or (count and size + submission.size > MAX_BYTES):
            break
        size += submission.size
        count += 1
    taken = pending[:count]
    del pending[:count]
    return taken


def new_messages(items: Iterable[Item]) -> Iterable[NewMessage]:
    """Yield the control-queue messages that items send, start rows of children left out."""
    for item in items:
        if isinstance(item, TurnCheckpoint | EntityCheckpoint):
            yield from item.messages
        elif isinstance(item, ActivityCompletion):
            yield item.message


def activity_classes(items: Iterable[Item]) -> set[tuple[str, str | None]]:
    """Return the names, with versions, of the activities that items start."""
    return {(task.name, task.version) for item in items if isinstance(item, TurnCheckpoint) for task in item.activities}


def choose_entering(memory: Memory, items: Sequence[Item]) -> frozenset[InstanceKey]:
    """Return the instances whose new rows this host takes into memory with the commit."""
    counts: dict[InstanceKey, tuple[int, int]] = {}
    for message in new_messages(items):
        count, size = counts.get(message.key, (0, 0))
        counts[message.key] = (count + 1, size + len(message.events))
    return frozenset(key for key, (count, size) in counts.items() if memory.may_enter(key, count, size))


def left_of_shares(memory: Memory, keys: Iterable[InstanceKey]) -> dict[InstanceKey, int]:
    """Return, for those of these instances that have messages in memory, how many more their share allows."""
    return {key: memory.limits.share_messages - mem.counted
            for key in keys if (mem := memory.find(key)) is not None and mem.rows}


def free_of(memory: Memory) -> dict[int, int]:
    """Return for how many more messages each partition has room."""
    return {partition: memory.limits.partition_messages - count for partition, count in memory.messages.items()}


def choose_looks(memory: Memory, items: Sequence[Item], entering: frozenset[InstanceKey]) -> tuple[InstanceKey, ...]:
    """Return the instances whose ceilings to read after the inserts: I4 for what enters, and those at their share.

    Where there is a ceiling, the instance's next rows are claimed behind the commit.
    """
    looks = {key: None for key in entering if (mem := memory.find(key)) is not None and mem.known and not mem.stale}
    for item in items:
        if isinstance(item, TurnCheckpoint) and item.ended:
            looks.pop(item.key, None)
        elif isinstance(item, TurnCheckpoint | EntityCheckpoint) and (
                (mem := memory.find(item.key)) is not None and mem.is_full):
            looks[item.key] = None
    return tuple(looks)
