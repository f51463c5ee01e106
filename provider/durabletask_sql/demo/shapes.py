"""The work of `durabletask-sql torture`: orchestrations of several shapes, and what each must come to."""

import json
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from durabletask import task
from durabletask.entities import DurableEntity, EntityInstanceId

Steps = Generator[task.Task[Any], Any, Any]
EVENT = "go"
COUNTERS = 8
_FAN = 10
_LIVES = 3


def step(_: task.ActivityContext, number: int) -> int:
    """Count one further."""
    return number + 1


def chain(ctx: task.OrchestrationContext, number: int) -> Steps:
    """Three activities, one after the other."""
    for _ in range(3):
        number = yield ctx.call_activity(step, input=number)
    return number


def fan(ctx: task.OrchestrationContext, number: int) -> Steps:
    """Many activities at once."""
    found = yield task.when_all([ctx.call_activity(step, input=number + place) for place in range(_FAN)])
    return sum(found)


def nap(ctx: task.OrchestrationContext, number: int) -> Steps:
    """An activity, a timer, an activity."""
    number = yield ctx.call_activity(step, input=number)
    yield ctx.create_timer(timedelta(milliseconds=200 + 100 * (number % 20)))
    return (yield ctx.call_activity(step, input=number))


def family(ctx: task.OrchestrationContext, number: int) -> Steps:
    """Two sub-orchestrations side by side."""
    found = yield task.when_all([ctx.call_sub_orchestrator(child, input=number) for child in (chain, nap)])
    return sum(found)


def listener(ctx: task.OrchestrationContext, number: int) -> Steps:
    """Wait for an event, and count one further than it says."""
    told = yield ctx.wait_for_external_event(EVENT)
    return (yield ctx.call_activity(step, input=told + number))


def phoenix(ctx: task.OrchestrationContext, number: int) -> Steps:
    """An activity in each of several executions."""
    found = yield ctx.call_activity(step, input=number)
    if found % _LIVES:
        ctx.continue_as_new(found)
        return None
    return found


class Counter(DurableEntity):  # type: ignore[misc]  # the SDK has no types
    """A number that is added to."""

    def add(self, number: int) -> None:
        """Add to it."""
        self.set_state(self.get_state(int, 0) + number)


def move(ctx: task.OrchestrationContext, number: int) -> Steps:
    """Take one from a counter and give it to another, both locked: all of them together stay at nothing."""
    ids = [EntityInstanceId("counter", str(place)) for place in (number % COUNTERS, (number + 1) % COUNTERS)]
    with (yield ctx.lock_entities(ids)):
        for entity, more in zip(ids, (-1, 1), strict=True):
            yield ctx.call_entity(entity, "add", more)
    return number


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape of work: what it returns for a number, and how many activity results its last execution's history has."""

    function: Callable[..., Any]
    output: Callable[[int], int]
    results: int

    def is_right(self, number: int, output: str | None) -> bool:
        """Tell whether an output is what it must be."""
        return output is not None and json.loads(output) == self.output(number)


SHAPES = {
    "chain": Shape(chain, lambda number: number + 3, 3),
    "fan": Shape(fan, lambda number: sum(number + place + 1 for place in range(_FAN)), _FAN),
    "nap": Shape(nap, lambda number: number + 2, 2),
    "family": Shape(family, lambda number: 2 * number + 5, 0),
    "listener": Shape(listener, lambda number: 2 * number + 1, 1),
    "phoenix": Shape(phoenix, lambda number: number + _LIVES - number % _LIVES, 1),
    "move": Shape(move, lambda number: number, 0),
}
