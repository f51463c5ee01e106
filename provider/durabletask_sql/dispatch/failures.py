"""What failed deliveries of instances' and entities' messages lead to: marks, delays, the quarantine.

Against whom a failure counts is `partitions.suspects`' decision. What fails in this host, whatever the error, counts
like an answer that cannot be carried out: the item is out no more, is tried again a few times, and is then set aside.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

from durabletask_sql.dispatch.delays import Delays
from durabletask_sql.dispatch.ports import BoardPorts
from durabletask_sql.errors import InvalidCompletionError
from durabletask_sql.model.checkpoints import Blame, Outcome, Quarantine
from durabletask_sql.model.deliveries import Mark, RowKey
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.quarantine import Source
from durabletask_sql.partitions.entity import EntityMemory
from durabletask_sql.partitions.eviction import AnyMemory
from durabletask_sql.partitions.resident import PROVISIONAL
from durabletask_sql.partitions.suspects import (
    COUNTED_FAILURES,
    Standing,
    Suspicion,
    after_refusal,
    counted,
    is_out,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer that cannot be carried out: to which messages, from whom, and why.

    `standing` None: no worker was given them, since this host could not even make their work item.
    """

    item: Hashable
    seqs: Sequence[int]
    timers: Sequence[int]
    standing: Standing | None
    cause: str
    blame: Blame


class Failures:
    """Failed deliveries of one kind of work of one task hub."""

    def __init__(self, suspicion: Suspicion, delays: Delays, ports: BoardPorts) -> None:
        """Take the parts."""
        self._suspicion = suspicion
        self._delays = delays
        self._ports = ports

    def mark(self, mem: AnyMemory, seqs: Sequence[int], timers: Sequence[int],
             failed: Callable[[int], int] = lambda failed: failed + 1) -> int:
        """Give messages one failed delivery more; return how many the worst of them has now."""
        mem.mark(seqs, timers, failed)
        found = {row.seq: row.failed for row in mem.rows}, {timer.seq: timer.failed for timer in mem.timers}
        marks = [Mark(row, found[row.source][row.seq]) for row in row_keys(mem.key, seqs, timers)
                 if row.seq in found[row.source]]
        self._ports.mark(marks)
        return max((mark.failed for mark in marks), default=0)

    def refuse(self, mem: AnyMemory, refused: Refused) -> "asyncio.Future[Outcome] | None":
        """Try an item again a few times, then set it aside with the cause; return what says that this is durable."""
        mem.failures += 1
        if refused.standing is None or self._suspicion.counts(refused.standing, refused.item):
            failed = self.mark(mem, refused.seqs, refused.timers, after_refusal)
            what = "its work item cannot be made" if refused.standing is None else (
                f"an answer of worker {refused.blame.worker!r} cannot be carried out")
            _log.error("%s: %s (%d of %d): %s", mem.key.instance_id, what, counted(failed), COUNTED_FAILURES,
                       refused.cause)
            if is_out(failed):
                return self._set_aside(mem, refused)
        else:
            report_worker(refused.standing, refused.blame.worker, refused.cause)
        self._delays.begin(mem, mem.failures)
        return None

    def _set_aside(self, mem: AnyMemory, refused: Refused) -> "asyncio.Future[Outcome]":
        """Nothing else of the instance runs before that is done."""
        mem.failures = 0
        self._suspicion.forget(refused.item)
        done = self._ports.submit(Quarantine(
            mem.key, refused.cause, tuple(refused.seqs), tuple(refused.timers), blame=refused.blame), None)
        if mem.turn is None:
            mem.blocked = True
            done.add_done_callback(lambda _: self._delays.end(mem))
        return done

    def set_aside_lost(self, mem: AnyMemory, seqs: Sequence[int], timers: Sequence[int], blame: Blame) -> None:
        """Set aside what was lost too often with its workers or hosts; nothing else of its instance runs meanwhile."""
        blame = replace(blame, worker=mem.lost_by, attempts=mem.worst)
        cause = lost_cause(blame.attempts)
        if not mem.refusals:
            _log.error("%r: a %s is set aside: %s", mem.key.instance_id,
                       "batch" if isinstance(mem, EntityMemory) else "turn", cause)
        self._suspicion.forget(mem.key)
        self._ports.submit(Quarantine(mem.key, cause, tuple(seqs), tuple(timers), blame=blame), None)


def cause_of(error: Exception, times: int) -> str:
    """Return why an item failed, `times` after it last succeeded.

    Whatever is not the answer's own fault is a bug of this host, and is told with its traceback, once in a row.
    """
    if isinstance(error, InvalidCompletionError):
        return str(error)
    if not times:
        _log.error("an item met a bug of this host; it is tried again, then set aside, and the others go on",
                   exc_info=error)
    return f"a bug of this host, {type(error).__name__}: {error}"


def row_keys(key: InstanceKey, seqs: Sequence[int], timers: Sequence[int]) -> list[RowKey]:
    """Return the rows of a turn or a batch; those whose commit is in flight have no key yet."""
    return [*(RowKey(Source.MESSAGE, key.partition, seq) for seq in seqs if seq < PROVISIONAL),
            *(RowKey(Source.TIMER, key.partition, seq) for seq in timers)]


def report_worker(standing: Standing, worker: str | None, cause: str) -> None:
    """Say, once for each connection, that a worker fails whatever it is given."""
    if not standing.is_reported:
        standing.is_reported = True
        _log.error("worker %r fails different items one after another and has completed nothing since it connected: that "
                   "is taken for its own fault and none of them is set aside; look into the worker (its last failure: %s)",
                   worker, cause)


def lost_cause(failed: int) -> str:
    """Return why an item is set aside whose workers, or hosts, were lost."""
    return (f"its worker, or its host, was lost {failed} times in a row while it had this, the last {counted(failed)} "
            "times with no other suspect beside it")
