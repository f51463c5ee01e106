"""The worker process of the crash tests: `python flows.py ADDRESS`, until standard input ends."""

from __future__ import annotations

import logging
import sys
from datetime import timedelta

from durabletask import task
from durabletask.entities import DurableEntity, EntityInstanceId
from durabletask.worker import TaskHubGrpcWorker

FAN = 4
RESULTS = 1 + FAN  # of activities, in a journey's own history
FILLER = "x" * 70_000  # large enough to be taken out of history


def do_step(_, number):
    return number + 1


def child(ctx, given):
    number, filler = given
    assert filler == FILLER
    return (yield ctx.call_activity(do_step, input=number))


def journey(ctx, number):
    """A sequence, a fan-out, a timer, a child: six activity results and a sum that shows each of them."""
    one = yield ctx.call_activity(do_step, input=number)
    many = yield task.when_all([ctx.call_activity(do_step, input=one + place) for place in range(FAN)])
    yield ctx.create_timer(ctx.current_utc_datetime + timedelta(milliseconds=100))
    last = yield ctx.call_sub_orchestrator(child, input=(sum(many), FILLER))
    return last


def expected(number):
    return sum(number + 2 + place for place in range(FAN)) + 1


class Counter(DurableEntity):
    """A number that is added to."""

    def add(self, number):
        self.set_state(self.get_state(int, 0) + number)


def move(ctx, keys):
    """Take one from a counter and give it to another, both locked, in the order given."""
    ids = [EntityInstanceId("counter", key) for key in keys]
    with (yield ctx.lock_entities(ids)):
        for entity, number in zip(ids, (-1, 1), strict=True):
            yield ctx.call_entity(entity, "add", number)


def main() -> None:
    logger = logging.Logger("crash test")
    logger.addHandler(logging.NullHandler())
    worker = TaskHubGrpcWorker(host_address=sys.argv[1], logger=logger)
    for orchestrator in (journey, child, move):
        worker.add_orchestrator(orchestrator)
    worker.add_activity(do_step)
    worker.add_entity(Counter, name="counter")
    worker.start()
    sys.stdin.read()
    worker.stop()


if __name__ == "__main__":
    main()
