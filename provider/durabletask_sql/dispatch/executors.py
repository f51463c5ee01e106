"""Connected executors and what each of them holds: slots, open turns, open activity tasks. No decisions about items."""

from collections.abc import Callable
from dataclasses import dataclass, field

from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import ActivityRow
from durabletask_sql.partitions.instance import InstanceMemory
from durabletask_sql.ports.work import Executor
from durabletask_sql.turn.intake import Intake


@dataclass(frozen=True, slots=True, eq=False)
class OpenTurn:
    """A turn that an executor holds. It is stale once the instance's memory has another turn, or none."""

    token: str
    mem: InstanceMemory
    intake: Intake
    seat: "Seat"

    @property
    def is_current(self) -> bool:
        """Whether its answer would still be taken."""
        return self.mem.turn is self.intake


@dataclass(frozen=True, slots=True, eq=False)
class OpenActivity:
    """An activity task that an executor holds."""

    token: str
    row: ActivityRow
    seat: "Seat"


@dataclass(slots=True, eq=False)
class Seat:
    """A connected executor with what it holds."""

    executor: Executor
    turns: dict[str, OpenTurn] = field(default_factory=dict)
    activities: dict[str, OpenActivity] = field(default_factory=dict)

    @property
    def free_turns(self) -> int:
        """How many more turns it takes."""
        return self.executor.turn_slots - len(self.turns)

    @property
    def free_activities(self) -> int:
        """How many more activity tasks it takes."""
        return self.executor.activity_slots - len(self.activities)


class Seats:
    """All connected executors of a task hub, and every open item by its token."""

    def __init__(self) -> None:
        """Begin with nobody connected."""
        self._seats: list[Seat] = []
        self.turns: dict[str, OpenTurn] = {}
        self.activities: dict[str, OpenActivity] = {}
        self._turn_by_key: dict[InstanceKey, str] = {}

    def add(self, executor: Executor) -> None:
        """Seat an executor."""
        self._seats.append(Seat(executor))

    def remove(self, executor: Executor) -> Seat | None:
        """Unseat an executor and return what it held; None when it was not seated."""
        for seat in self._seats:
            if seat.executor is executor:
                self._seats.remove(seat)
                for token in seat.turns:
                    self._forget_turn(token)
                for token in seat.activities:
                    del self.activities[token]
                return seat
        return None

    def for_turn(self) -> Seat | None:
        """Return the executor with most room for turns, if any has some."""
        return _most(self._seats, lambda seat: seat.free_turns)

    def for_activity(self) -> Seat | None:
        """Return the executor with most room for activity tasks, if any has some."""
        return _most(self._seats, lambda seat: seat.free_activities)

    def free_activities(self) -> int:
        """Return how many more activity tasks all of them take."""
        return sum(max(0, seat.free_activities) for seat in self._seats)

    def open_turn(self, turn: OpenTurn) -> None:
        """Note a turn that was handed out."""
        turn.seat.turns[turn.token] = turn
        self.turns[turn.token] = turn
        self._turn_by_key[turn.mem.key] = turn.token

    def open_activity(self, activity: OpenActivity) -> None:
        """Note an activity task that was handed out."""
        activity.seat.activities[activity.token] = activity
        self.activities[activity.token] = activity

    def close_turn(self, token: str) -> OpenTurn | None:
        """Free the slot of an answered turn; None when the token is not open."""
        turn = self._forget_turn(token)
        if turn is not None:
            turn.seat.turns.pop(token, None)
        return turn

    def close_activity(self, token: str) -> OpenActivity | None:
        """Free the slot of an answered activity task; None when the token is not open."""
        activity = self.activities.pop(token, None)
        if activity is not None:
            activity.seat.activities.pop(token, None)
        return activity

    def turn_token(self, key: InstanceKey) -> str:
        """Return the token of the open turn of an instance, or "" (for SDKs that do not echo tokens)."""
        return self._turn_by_key.get(key, "")

    def activity_token(self, instance_id: str, task_id: int) -> str:
        """Return the token of the open activity task of an instance, or "" (for SDKs that do not echo tokens)."""
        for token, activity in self.activities.items():
            if activity.row.key.instance_id == instance_id and activity.row.task_id == task_id:
                return token
        return ""

    @property
    def is_empty(self) -> bool:
        """Whether nobody holds anything."""
        return not self.turns and not self.activities

    def _forget_turn(self, token: str) -> OpenTurn | None:
        turn = self.turns.pop(token, None)
        if turn is not None and self._turn_by_key.get(turn.mem.key) == token:
            del self._turn_by_key[turn.mem.key]
        return turn


def _most(seats: list[Seat], room: Callable[[Seat], int]) -> Seat | None:
    best = max(seats, key=room, default=None)
    return best if best is not None and room(best) > 0 else None
