"""What becomes of an item that the database refuses: it is set aside, and if that is refused as well, put off.

What is put off goes again after a growing delay, and is reported once: whatever refuses both (a right that was taken
away, a trigger) may end, and then neither is set aside for it.
"""

import asyncio
import logging
from collections.abc import Callable

from durabletask_sql.dispatch.delays import LAST_SECONDS, Delays, delay_seconds
from durabletask_sql.dispatch.grouping import Submission
from durabletask_sql.model.checkpoints import (
    ActivityCompletion,
    Blame,
    Discard,
    EntityCheckpoint,
    Item,
    OrchestrationStart,
    Outcome,
    Quarantine,
    TurnCheckpoint,
)
from durabletask_sql.partitions.memory import Memory

_log = logging.getLogger(__name__)


class Refusals:
    """The refused items of one task hub."""

    def __init__(self, memory: Memory, delays: Delays, queue: Callable[[Submission], None]) -> None:
        """`queue` takes what is to be committed instead."""
        self._memory = memory
        self._delays = delays
        self._queue = queue

    def follow(self, submission: Submission, outcome: Outcome) -> None:
        """Set a refused item aside; its submitter hears of it when that is durable, or when that is refused as well."""
        item, cause = submission.item, outcome.cause
        if isinstance(item, OrchestrationStart):
            _log.error("the start of instance %r was refused: %s", item.key.instance_id, cause)
            submission.settle(outcome)
        elif isinstance(item, Quarantine | Discard):
            self._put_off(submission, item, cause)
            submission.settle(outcome)
        else:
            mem = self._memory.find(item.key)
            if mem is None or not mem.refusals:
                _log.error("instance %r: an item is set aside in quarantine because the database refuses it: %s",
                           item.key.instance_id, cause)
            self._queue(Submission(_quarantine_of(item, cause), submission.done))

    def _put_off(self, submission: Submission, item: Quarantine | Discard, cause: str) -> None:
        """Try again later: an instance's turn, or what was to be done about its messages; of a task, to set it aside."""
        mem, times = self._memory.find(item.key), submission.refusals + 1
        if isinstance(item, Quarantine) and item.activity is not None:
            loop = asyncio.get_running_loop()
            again = Submission(item, loop.create_future(), refusals=times)
            loop.call_later(delay_seconds(times), self._queue, again)
        elif mem is not None:
            times = mem.refusals = mem.refusals + 1
            self._delays.begin(mem, times)
        if times == 1:
            _log.error("instance %r: the database refuses to %s what cannot be carried out: %s. Look for what forbids it, "
                       "like a right or a trigger; it is tried again after delays that grow to %.0f s",
                       item.key.instance_id, "set aside" if isinstance(item, Quarantine) else "delete", cause, LAST_SECONDS)


def _quarantine_of(item: Item, cause: str) -> Quarantine:
    """Return what sets an item aside that the database refuses."""
    if isinstance(item, TurnCheckpoint):
        row = item.row
        blame = Blame(item.continued_from or row.execution_id, row.name, row.version)
        return Quarantine(item.key, cause, item.consumed, item.consumed_timers, blame=blame)
    if isinstance(item, EntityCheckpoint):
        return Quarantine(item.key, cause, item.consumed, item.consumed_timers)
    if isinstance(item, ActivityCompletion):
        execution = item.message.execution_id if item.message is not None else None
        return Quarantine(item.key, cause, activity=(item.seq, item.token), blame=Blame(execution))
    message = f"{type(item).__name__} cannot be set aside"
    raise TypeError(message)
