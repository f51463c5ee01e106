"""What the parts of the board need of their host."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from durabletask_sql.model.checkpoints import Item, Outcome
from durabletask_sql.model.deliveries import Mark
from durabletask_sql.model.messages import ActivityRow
from durabletask_sql.partitions.suspects import Delivery


@dataclass(frozen=True, slots=True)
class Carefully:
    """What a careful host is about to send: written down first, then sent or, if it is not wanted any more, forgotten."""

    delivery: Delivery
    is_wanted: Callable[[], bool]
    send: Callable[[], None]
    forget: Callable[[], object]


@dataclass(frozen=True, slots=True)
class BoardPorts:
    """Submitting items, finding an activity task by its claim, having work looked for, keeping marks.

    `submit` takes the sequence under which the item's message is in memory already, or None. `in_flight` are the
    commits that such messages wait for. `found_takers` says that somebody takes what nobody took, `pump`
    hands out whatever can be handed out, `is_alive` tells whether this host still has its lease, `peers`
    how many other hosts live, `may_run_ahead` whether turns may run ahead of commits now. `mark` keeps how often
    deliveries of rows have failed, `deliver` sends carefully.
    """

    submit: Callable[[Item, int | None], "asyncio.Future[Outcome]"]
    find_activity: Callable[[int, int, int], Awaitable[ActivityRow | None]]
    wants_work: Callable[[], None]
    found_takers: Callable[[], None]
    pump: Callable[[], None]
    is_alive: Callable[[], bool]
    peers: Callable[[], int]
    may_run_ahead: Callable[[], bool]
    mark: Callable[[Sequence[Mark]], None]
    deliver: Callable[[Carefully], None]
    in_flight: dict[int, "asyncio.Future[Outcome]"] = field(default_factory=dict)

    def submit_ahead(self, item: Item, provisional: int | None) -> "asyncio.Future[Outcome]":
        """Submit an item; turns that its message triggers may run at once, their commits wait for this one (I3)."""
        done = self.submit(item, provisional)
        if provisional is not None:
            self.in_flight[provisional] = done
            done.add_done_callback(lambda _: self.in_flight.pop(provisional, None))
        return done
