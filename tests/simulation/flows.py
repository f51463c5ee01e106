"""The orchestrators, activities and entities of the simulation. What each gives follows from its input alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from simulation.sdk import Body, Flow, FlowError

ROUNDS = 3


def chain(flow: Flow, number: int):
    for _ in range(3):
        number = yield flow.task("add_one", number)
    return number


def fan(flow: Flow, number: int):
    found = yield [flow.task("add_one", number + place) for place in range(4)]
    return sum(found)


def nap(flow: Flow, seconds: float):
    before = flow.now
    yield flow.nap(seconds)
    assert flow.now > before + seconds * 1_000_000
    return "rested"


def family(flow: Flow, number: int):
    """Two children, one of which has a child of its own."""
    one, two = yield [flow.child("chain", number), flow.child("fan", number)]
    grand = yield flow.child("guardian", number)
    return one + two + grand


def guardian(flow: Flow, number: int):
    yield flow.nap(2)
    return (yield flow.child("chain", number))


def listener(flow: Flow, given: Any):
    """Hear everything up to the end; say in what order it came."""
    heard = []
    while True:
        word = yield flow.event("word")
        if word == "end":
            return heard
        heard.append(word)


def counter(flow: Flow, heard: list[Any]):
    """The same, beginning anew with every two words: what comes late is carried over, or waits for the next one."""
    for _ in range(2):
        word = yield flow.event("word")
        if word == "end":
            return heard
        heard = [*heard, word]
    yield flow.task("add_one", len(heard))
    flow.again(heard)
    yield []


def periodic(flow: Flow, done: int):
    """Work and rest, a few times, each time from the beginning."""
    number = yield flow.task("add_one", done)
    yield [flow.nap(1.5), flow.task("add_one", number)]
    if number == ROUNDS:
        return number
    flow.again(number)
    yield []


def sleeper(flow: Flow, given: Any):
    """Never ends by itself: it has children, timers and work, and waits for a word that nobody says."""
    yield [flow.child("chain", 1), flow.task("add_one", 1)]
    yield [flow.child("deaf", None, f"{flow.instance}.child"), flow.nap(10_000), flow.event("never")]


def deaf(flow: Flow, given: Any):
    flow.task("add_one", 1)
    yield [flow.event("never"), flow.nap(10_000)]


def busy(flow: Flow, given: Any):
    """One step after the other, for longer than anybody waits."""
    for number in range(100):
        yield flow.task("add_one", number)


def teller(flow: Flow, given: list[Any]):
    """Say words to another one, with work between them."""
    target, first = given
    for number in range(first, first + 4):
        flow.tell(target, "word", number)
        yield flow.task("add_one", number)
    flow.tell(target, "word", "end")
    return "told"


def mover(flow: Flow, keys: list[str]):
    """Take one from an account and give it to another, both locked."""
    one, two = (f"@account@{key}" for key in keys)
    section = yield flow.lock(one, two)
    before = yield [flow.call(one, "get"), flow.call(two, "get")]
    yield flow.call(one, "add", -1)
    yield flow.task("add_one", 0)
    yield flow.call(two, "add", 1)
    after = yield [flow.call(one, "get"), flow.call(two, "get")]
    assert after == [before[0] - 1, before[1] + 1], (before, after)
    flow.unlock(section, one, two)
    return "moved"


def holder(flow: Flow, keys: list[str]):
    """Lock accounts and keep them until somebody ends it."""
    entities = [f"@account@{key}" for key in keys]
    yield flow.lock(*entities)
    yield flow.call(entities[0], "add", 0)
    yield flow.event("never")


def fragile(flow: Flow, number: int):
    """Fail until somebody mends the world, and begin again where it failed."""
    one = yield flow.task("add_one", number)
    two = yield flow.task("need_mending", [flow.instance, one])
    return (yield flow.task("add_one", two))


def stubborn(flow: Flow, number: int):
    """Try what fails at first again, after a rest."""
    for attempt in range(3):
        try:
            return (yield flow.task("fail_twice", [flow.instance, attempt, number]))
        except FlowError:
            yield flow.nap(1)
    return None


BODIES: Mapping[str, Body] = {body.__name__: body for body in (
    chain, fan, nap, family, guardian, busy, listener, counter, periodic, sleeper, deaf, teller, mover, holder, fragile, stubborn)}


def expected(name: str, given: Any) -> Any:
    """Return what those flows give whose output is known beforehand."""
    found = {
        "chain": lambda: given + 3, "fan": lambda: sum(given + place + 1 for place in range(4)), "nap": lambda: "rested",
        "family": lambda: expected("chain", given) * 2 + expected("fan", given), "periodic": lambda: ROUNDS,
        "stubborn": lambda: given, "fragile": lambda: given + 3,
    }
    return found[name]()


class World:
    """What activities can see besides their input."""

    def __init__(self) -> None:
        self.mended: set[str] = set()


def run_activity(world: World, name: str, given: Any) -> Any:
    """Run an activity. Raises FlowError where it fails."""
    match name:
        case "add_one":
            return given + 1
        case "need_mending":
            instance, number = given
            if instance not in world.mended:
                raise FlowError("broken")
            return number + 1
        case "fail_twice":
            _, attempt, number = given
            if attempt < 2:
                raise FlowError("not yet")
            return number
    raise AssertionError(name)


def run_operation(state: str | None, operation: str, given: Any) -> tuple[str, Any]:
    """Run an operation of an account; return its state and the result."""
    value = json.loads(state) if state else 0
    if operation == "add":
        value += given
    return json.dumps(value), value
