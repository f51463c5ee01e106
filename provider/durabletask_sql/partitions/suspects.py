"""Which item is to blame when deliveries fail: the rule of invariant I12, as values and pure decisions.

A lost worker, or host, marks what was out on it. Up to two marks in a row change nothing: workers are redeployed every
day. From the third on the item is a *suspect*: a worker has one suspect at a time beside its other work (a careful host
one over all its workers), so that a loss counts against that one alone. An answer that cannot be carried out is the
item's own doing and counts at once. A success clears the marks; after five counted failures the item is set aside.

Beside other work nobody can tell whether an item has run at all: what waits in the queue of a worker that is killed again
and again would pay for what it never did. So a worker that holds nothing is given a suspect before anything else. A
suspect may also go to a worker that has completed something since it connected, beside what that has; an *accused*, one
that was lost as a suspect, only after a while in which nothing of the kind happened, lest workers that always have
something to do keep it waiting for ever.

A failing worker is told apart from a failing item. Where the last worker of a kind was lost before it had completed
anything, the next ones begin with other work, until one completes something. A failure counts against the item if this
worker has completed something since it connected, or a worker of its kind since the item first failed, or if no other
item has failed since anybody completed anything. Else it is the worker's.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from durabletask_sql.clock import Clock
from durabletask_sql.model.deliveries import Out, RowKey
from durabletask_sql.model.messages import QueueRow, TimerRow

SUSPECT_FROM = 3  # marks
COUNTED_FAILURES = 5
_OUT_FROM = SUSPECT_FROM + COUNTED_FAILURES
PATIENCE_SECONDS = 15.0  # for a worker that holds nothing
REMEMBERED = 10_000  # items that have failed here; what completes or is purged elsewhere is never heard of again


def is_suspect(failed: int) -> bool:
    """Tell whether an item whose deliveries have failed so often in a row is a suspect."""
    return failed >= SUSPECT_FROM


def is_accused(failed: int) -> bool:
    """Tell whether a delivery of such an item has failed since it became a suspect."""
    return failed > SUSPECT_FROM


def is_out(failed: int) -> bool:
    """Tell whether an item is to be set aside."""
    return failed >= _OUT_FROM


def after_refusal(failed: int) -> int:
    """Return the failures of an item after an answer that cannot be carried out."""
    return max(failed, SUSPECT_FROM) + 1


def counted(failed: int) -> int:
    """Return how many of an item's failures count against it."""
    return max(0, failed - SUSPECT_FROM)


def parted(rows: Sequence[QueueRow], timers: Sequence[TimerRow]) -> tuple[Sequence[QueueRow], Sequence[TimerRow]]:
    """Return what the next turn of an instance may take of its rows and due timers: a suspect is alone in its turn."""
    for place, row in enumerate(rows):
        if is_suspect(row.failed):
            return rows[:max(1, place)], ()
    innocent = [timer for timer in timers if not is_suspect(timer.failed)]
    return (rows, innocent) if rows or innocent else (rows, timers[:1])


def lost_with_host(out: Sequence[Out]) -> Sequence[Out]:
    """Return which of the rows that a lost host had out have failed once more: the suspect alone, if there was one."""
    return [one for one in out if one.is_suspect] or out


class Delivery(Protocol):
    """An item that is out. `item` says which, whatever delivery of it, `rows` which rows it consists of."""

    @property
    def item(self) -> Hashable:
        """What identifies the item."""
        ...

    @property
    def is_suspect(self) -> bool:
        """Whether it was a suspect when it went out."""
        ...

    @property
    def rows(self) -> Sequence[RowKey]:
        """Which rows it consists of."""
        ...


DeliveryT = TypeVar("DeliveryT", bound=Delivery)


@dataclass(slots=True, eq=False)
class Standing:
    """What a connected worker has shown: how much it holds, whether a suspect is among that, whether it gets on.

    Workers of one `kind` take the same work.
    """

    kind: Hashable
    held: int = 0
    has_suspect: bool = False
    has_completed: bool = False
    is_reported: bool = False


class Suspicion:
    """Who may take a suspect, and against whom a failure counts, on one host for one task hub."""

    def __init__(self, clock: Clock) -> None:
        """Suspect nobody.

        `aroused`: there has been a suspect here. `careful`: one suspect is out over all workers, since the host itself
        may be lost; what came back is noted in `returned`, since it is no longer out.
        """
        self.aroused = False
        self.careful = False
        self._clock = clock
        self._patient_until = clock.monotonic() + PATIENCE_SECONDS
        self.returned: list[RowKey] = []
        self._suspects = 0
        self._completed: Counter[Hashable] = Counter()  # by the kind of worker
        self._before: dict[Hashable, dict[Hashable, int]] = {}  # by item: the same when it first failed
        self._failing: set[Hashable] = set()
        self._doubted: set[Hashable] = set()  # kinds of workers

    def may_take(self, standing: Standing, *, accused: bool = False) -> bool:
        """Tell whether a worker may be given a suspect now."""
        if standing.has_suspect or (self.careful and self._suspects):
            return False
        if not standing.held:
            return True
        return standing.has_completed and not (accused and self._clock.monotonic() < self._patient_until)

    def may_begin_with(self, standing: Standing) -> bool:
        """Tell whether a worker may be given a suspect now before anything else."""
        return not standing.held and standing.kind not in self._doubted and self.may_take(standing)

    def went_out(self, standing: Standing, delivery: Delivery) -> None:
        """Note that an item was handed to a worker."""
        standing.held += 1
        if delivery.is_suspect:
            if standing.held > 1:
                self._be_patient()
            standing.has_suspect = True
            self._suspects += 1

    def came_back(self, standing: Standing, delivery: Delivery) -> None:
        """Note that a worker does not have an item any more, whyever."""
        standing.held -= 1
        if delivery.is_suspect:
            standing.has_suspect = False
            self._suspects -= 1
        if self.careful:
            self.returned += delivery.rows

    def completed(self, standing: Standing, item: Hashable) -> None:
        """Note that a worker has completed an item."""
        standing.has_completed = True
        self._completed[standing.kind] += 1
        self._failing.clear()
        self._doubted.discard(standing.kind)
        self._before.pop(item, None)

    def counts(self, standing: Standing, item: Hashable) -> bool:
        """Note a failure of an item at a worker; tell whether it counts against the item, and not the worker."""
        before = self._first_failure(standing, item)
        self._failing.add(item)
        return (standing.has_completed or self._completed[standing.kind] > before or len(self._failing) == 1)

    def _first_failure(self, standing: Standing, item: Hashable) -> int:
        if item not in self._before and len(self._before) >= REMEMBERED:
            del self._before[next(iter(self._before))]
        return self._before.setdefault(item, {}).setdefault(standing.kind, self._completed[standing.kind])

    def forget(self, item: Hashable) -> None:
        """Note that an item was set aside."""
        self._before.pop(item, None)
        self._failing.discard(item)

    def marked(self, standing: Standing, held: Sequence[DeliveryT]) -> Sequence[DeliveryT]:
        """Return which of the items that a lost worker held have failed once more."""
        if held and not standing.has_completed:
            self._doubted.add(standing.kind)
        suspects = [delivery for delivery in held if delivery.is_suspect]
        if suspects:
            self._be_patient()
            return [one for one in suspects if self.counts(standing, one.item)]
        for delivery in held:
            self._first_failure(standing, delivery.item)
        return held

    def _be_patient(self) -> None:
        self._patient_until = self._clock.monotonic() + PATIENCE_SECONDS
