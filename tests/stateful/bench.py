"""An executor that holds what it is offered until the test says what becomes of it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from durabletask_sql.ports.work import ActivityItem, EntityItem, Profile, TurnItem
from stateful.words import Word, turn_time, words

_numbers = itertools.count()


@dataclass(frozen=True, eq=False)
class OfferedTurn:
    """A turn as it was offered, in words."""

    token: str
    instance: str
    execution: str
    past: tuple[Word, ...]
    new: tuple[Word, ...]
    time: int
    number: int  # of all offers


@dataclass(frozen=True, eq=False)
class OfferedBatch:
    """Operations of an entity as they were offered: name and input each."""

    token: str
    entity: str
    state: str | None
    operations: tuple[tuple[str, str], ...]
    number: int  # of all offers


@dataclass(eq=False)
class Bench:
    """Implements `ports.work.Executor`."""

    name: str
    turn_slots: int = 100
    activity_slots: int = 100
    entity_slots: int = 100
    profile: Profile = Profile()
    turns: dict[str, OfferedTurn] = field(default_factory=dict)
    tasks: dict[str, ActivityItem] = field(default_factory=dict)
    batches: dict[str, OfferedBatch] = field(default_factory=dict)

    def offer_turn(self, item: TurnItem) -> None:
        self.turns[item.token] = OfferedTurn(item.token, item.key.instance_id, item.execution_id,
                                             tuple(words(item.past)), tuple(words([item.new_events])),
                                             turn_time(item.new_events), next(_numbers))

    def offer_entity(self, item: EntityItem) -> None:
        operations = tuple((said[3], said[4]) for said in words([item.operations]))
        self.batches[item.token] = OfferedBatch(item.token, item.key.instance_id, item.state, operations, next(_numbers))

    def offer_activity(self, item: ActivityItem) -> None:
        self.tasks[item.token] = item
