"""The rules that every machine of the stateful test has: orchestrations, their workers, time and misfortune."""

from __future__ import annotations

import itertools
import json

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from checker import check_hub
from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.model.creation import CreationPolicy
from durabletask_sql.model.status import LIVE, TERMINAL, Status
from durabletask_sql.service.abstraction import NewInstance
from stateful.faults import Fault
from stateful.instances import Request
from stateful.stage import Stage

_hubs = itertools.count()

DEEPEST = 5  # levels of an instance and what is below it: an id that is used again may put one family below another
LARGE = 70_000  # characters, beyond what stays in a history row
IDS = st.sampled_from(["a", "b", "c", "d"])
NAMES = st.sampled_from(["red", "blue"])
POLICIES = st.sampled_from([LIVE, frozenset(), LIVE | TERMINAL, frozenset({Status.TERMINATED}), TERMINAL - {Status.FAILED}])
WAITS = st.integers(0, 2)  # no, yes, yes and it must succeed


def steps_of(depth: int) -> st.SearchStrategy[list[object]]:
    """Scripts: what an orchestrator does, one thing after the other."""
    return st.lists(step(depth), max_size=4)


def step(depth: int) -> st.SearchStrategy[list[object]]:
    """One step of a script, with scripts below it."""
    child_ids = IDS | st.just("")
    kinds = [
        st.tuples(st.just("work"), st.integers(1, 2), WAITS),
        st.tuples(st.just("try"), st.integers(1, 2), st.booleans()),
        st.tuples(st.just("sleep"), st.sampled_from([0, 1, 30, 100]), st.integers(0, 1)),
        st.tuples(st.just("expect"), NAMES),
        st.tuples(st.just("tell"), IDS, NAMES),
        st.tuples(st.just("kill"), IDS, st.booleans()),
        st.tuples(st.just("note"), st.sampled_from(["one", "two"])),
        st.tuples(st.just("fail")),
    ]
    if depth:
        below = steps_of(depth - 1)
        kinds += [st.tuples(st.just("start"), below, child_ids, WAITS), st.tuples(st.just("again"), below)]
    return st.one_of(kinds).map(list)


class Rules(RuleBasedStateMachine):
    """A task hub, the real one and the model."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.salts = itertools.count()
        self.diligence: int | None = None
        self.stage: Stage

    @property
    def now(self) -> int:
        return self.stage.clock.now()

    def salt(self) -> str:
        return f"s{next(self.salts)}"

    def do(self, operation, effect, *, past=False, cut_short=()) -> None:
        """Do something through the host's service, or past it as another process does."""
        if past:
            self.stage.step_past_the_owner(operation, effect)
        else:
            self.stage.step(lambda: operation(self.stage.service), effect, cut_short=cut_short)

    # Clients

    @initialize(is_tight=st.sampled_from([False, False, True]), scripts=st.lists(steps_of(2), min_size=1, max_size=3))
    def begin(self, is_tight, scripts):
        self.open(scripts, is_tight=is_tight)

    @initialize(diligence=st.sampled_from([None, None, 0, 1, 2, 5]))
    def have_work_done(self, diligence):
        """A diligent worker answers everything after each step; of three of its tasks those fail whose bit is set."""
        self.diligence = diligence

    @invariant()
    def be_diligent(self):
        if self.diligence is not None:
            self.work_on(1, self.diligence)

    def open(self, scripts, *, is_tight):
        """Begin with a worker and some orchestrations."""
        self.stage = Stage(self.url, f"hub-{next(_hubs)}", is_tight=is_tight)
        self.stage.connect("first")
        for instance, steps in zip("abcd", scripts, strict=False):
            self.start(instance, steps, LIVE)

    @rule(instance=IDS, steps=steps_of(2), dedupe=POLICIES, delay=st.sampled_from([None, None, None, 0, 20, 90]),
          event=st.none() | NAMES)
    def create(self, instance, steps, dedupe, delay, event):
        self.start(instance, steps, dedupe, delay, event)

    def start(self, instance, steps, dedupe, delay=None, event=None):
        """Create an orchestration as a client does."""
        salt = self.salt()
        data = json.dumps({"salt": salt, "round": 0, "seen": [], "steps": steps})
        start_at = None if delay is None else self.now + delay * MICROSECONDS
        first = None if event is None else (event, salt)
        request, now = Request(instance, data, dedupe, start_at, first), self.now
        new = NewInstance("script", instance, data, start_at=start_at, policy=CreationPolicy(dedupe), event=first)

        async def create(service):
            return await service.create(new) and "ok"

        self.do(create, lambda model: model.create(request, now))

    @rule(instance=IDS, recurse=st.booleans(), past=st.booleans())
    def terminate(self, instance, recurse, past):
        salt = self.salt()
        self.do(lambda service: service.terminate(instance, salt, recursive=recurse),
                lambda model: model.terminate(instance, salt, recurse=recurse), past=past)

    @rule(instance=IDS, recursive=st.booleans())
    def purge(self, instance, recursive):
        async def purge(service):
            return (await service.purge([instance], recursive=recursive)).count

        self.do(purge, lambda model: model.purge(instance, recursive=recursive), cut_short=[
            lambda model, spared=spared: model.purge(instance, recursive=True, spared=spared)
            for spared in range(1, DEEPEST) if recursive])

    # Workers

    def some(self, data, what):
        found = list(what)
        return found[data.draw(st.integers(0, len(found) - 1))]

    @precondition(lambda self: self.stage.held())
    @rule(data=st.data())
    def answer_turn(self, data):
        self.stage.answer_turn(self.some(data, self.stage.held()))

    @precondition(lambda self: self.stage.holds_any())
    @rule(rounds=st.integers(1, 3), failures=st.integers(0, 7))
    def work(self, rounds, failures):
        self.work_on(rounds, failures)

    def work_on(self, rounds, failures):
        """Answer everything, and what comes of it; of three tasks those fail whose bit is set."""
        for _ in range(rounds):
            for turn in self.stage.held():
                self.stage.answer_turn(turn)
            for at, item in enumerate(self.stage.held_tasks()):
                self.stage.answer_task(item, fails=bool(failures >> at % 3 & 1))
            for batch in self.stage.held_batches():
                self.stage.answer_batch(batch, len(batch.operations))

    @precondition(lambda self: self.stage.held_tasks())
    @rule(data=st.data(), fails=st.booleans(), size=st.sampled_from([0, 0, LARGE]))
    def answer_task(self, data, fails, size):
        self.stage.answer_task(self.some(data, self.stage.held_tasks()), fails=fails, size=size)

    @rule(name=st.sampled_from(["first", "second", "orchestrations", "activities"]))
    def come_or_go(self, name):
        if name not in self.stage.connected:
            self.stage.connect(name)
        elif self.stage.may_lose:
            self.stage.disconnect(name)

    # Time and misfortune

    @rule(seconds=st.sampled_from([0.5, 5, 40, 200]))
    def wait(self, seconds):
        self.stage.advance(seconds)

    @precondition(lambda self: self.stage.may_lose)
    @rule()
    def crash(self):
        self.stage.crash()

    @precondition(lambda self: self.stage.may_lose)
    @rule(how=st.sampled_from(["crash", "unknown", "unavailable"]), after=st.booleans(), skip=st.integers(0, 4))
    def arm(self, how, after, skip):
        self.stage.arm(Fault(how, after and how != "unavailable", skip))

    # The end

    def teardown(self):
        if not hasattr(self, "stage"):
            return
        try:
            if not self.stage.failed:
                self.stage.drive_to_rest()
                assert check_hub(self.url) == []
        finally:
            self.stage.close()
