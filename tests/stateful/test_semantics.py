"""Random clients and workers against a host that crashes, on both databases, beside a model of what a task hub does.

DURABLETASK_SQL_STATEFUL_EXAMPLES sets how many runs (default 25 a database, the same ones each time; with the variable
set they are random ones), DURABLETASK_SQL_STATEFUL_STEPS how long each is.
"""

from __future__ import annotations

import itertools
import json
import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from checker import check_hub
from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.model.creation import CreationPolicy
from durabletask_sql.model.status import LIVE, TERMINAL, Status
from durabletask_sql.service.abstraction import NewInstance
from stateful.faults import Fault
from stateful.model import Request
from stateful.stage import Stage

EXAMPLES = os.environ.get("DURABLETASK_SQL_STATEFUL_EXAMPLES")
STEPS = int(os.environ.get("DURABLETASK_SQL_STATEFUL_STEPS", "30"))

_hubs = itertools.count()

IDS = st.sampled_from(["a", "b", "c", "d"])
NAMES = st.sampled_from(["red", "blue"])
POLICIES = st.sampled_from([LIVE, frozenset(), LIVE | TERMINAL, frozenset({Status.TERMINATED}), TERMINAL - {Status.FAILED}])


def steps_of(depth: int) -> st.SearchStrategy[list[object]]:
    """Scripts: what an orchestrator does, one thing after the other."""
    child_ids = IDS | st.just("")
    kinds = [
        st.tuples(st.just("work"), st.integers(1, 2), st.booleans()),
        st.tuples(st.just("sleep"), st.sampled_from([0, 1, 30, 100])),
        st.tuples(st.just("expect"), NAMES),
        st.tuples(st.just("tell"), IDS, NAMES),
        st.tuples(st.just("kill"), IDS, st.booleans()),
        st.tuples(st.just("note"), st.sampled_from(["one", "two"])),
        st.tuples(st.just("fail")),
    ]
    if depth:
        below = steps_of(depth - 1)
        kinds += [st.tuples(st.just("start"), below, child_ids, st.booleans()), st.tuples(st.just("again"), below)]
    return st.lists(st.one_of(kinds).map(list), max_size=4)


class TaskHub(RuleBasedStateMachine):
    """The rules: what clients, workers, time and misfortune do."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.salts = itertools.count()
        self.stage = Stage(self.url, f"hub-{next(_hubs)}")

    @property
    def now(self) -> int:
        return self.stage.clock.now()

    def salt(self) -> str:
        return f"s{next(self.salts)}"

    def do(self, operation, effect) -> None:
        self.stage.step(operation, effect)

    # Clients

    @initialize()
    def begin(self):
        self.stage.connect("first")

    @rule(instance=IDS, steps=steps_of(2), dedupe=POLICIES, delay=st.sampled_from([None, None, None, 0, 20, 90]),
          event=st.none() | NAMES)
    def create(self, instance, steps, dedupe, delay, event):
        salt = self.salt()
        data = json.dumps({"salt": salt, "round": 0, "seen": [], "steps": steps})
        start_at = None if delay is None else self.now + delay * MICROSECONDS
        first = None if event is None else (event, salt)
        request, now = Request(instance, data, dedupe, start_at, first), self.now
        new = NewInstance("script", instance, data, start_at=start_at, policy=CreationPolicy(dedupe), event=first)

        async def create():
            return await self.stage.service.create(new) and "ok"

        self.do(create, lambda model: model.create(request, now))

    @rule(instance=IDS, name=NAMES)
    def raise_event(self, instance, name):
        salt = self.salt()
        self.do(lambda: self.stage.service.raise_event(instance, name, salt),
                lambda model: model.deliver(instance, ("event", name, salt)))

    @rule(instance=IDS, recurse=st.booleans())
    def terminate(self, instance, recurse):
        salt = self.salt()
        self.do(lambda: self.stage.service.terminate(instance, salt, recursive=recurse),
                lambda model: model.terminate(instance, salt, recurse=recurse))

    @rule(instance=IDS)
    def suspend(self, instance):
        salt = self.salt()
        self.do(lambda: self.stage.service.suspend(instance, salt),
                lambda model: model.deliver(instance, ("suspended", salt)))

    @rule(instance=IDS)
    def resume(self, instance):
        salt = self.salt()
        self.do(lambda: self.stage.service.resume(instance, salt),
                lambda model: model.deliver(instance, ("resumed", salt)))

    @rule(instance=IDS, recursive=st.booleans())
    def purge(self, instance, recursive):
        async def purge():
            return (await self.stage.service.purge([instance], recursive=recursive)).count

        self.do(purge, lambda model: model.purge(instance, recursive=recursive))

    # Workers

    def some(self, data, what):
        found = list(what)
        return found[data.draw(st.integers(0, len(found) - 1))]

    @precondition(lambda self: self.stage.held())
    @rule(data=st.data())
    def answer_turn(self, data):
        self.stage.answer_turn(self.some(data, self.stage.held()))

    @precondition(lambda self: self.stage.held())
    @rule()
    def answer_all_turns(self):
        for turn in self.stage.held():
            self.stage.answer_turn(turn)

    @precondition(lambda self: self.stage.spent)
    @rule(data=st.data())
    def answer_late(self, data):
        self.stage.answer_turn(self.some(data, self.stage.spent))

    @precondition(lambda self: self.stage.held_tasks())
    @rule(data=st.data(), fails=st.booleans())
    def answer_task(self, data, fails):
        self.stage.answer_task(self.some(data, self.stage.held_tasks()), fails=fails)

    @rule(name=st.sampled_from(["first", "second"]))
    def come_or_go(self, name):
        (self.stage.disconnect if name in self.stage.connected else self.stage.connect)(name)

    # Time and misfortune

    @rule(seconds=st.sampled_from([0.5, 5, 40, 200]))
    def wait(self, seconds):
        self.stage.advance(seconds)

    @rule()
    def crash(self):
        self.stage.crash()

    @rule(how=st.sampled_from(["crash", "unknown", "unavailable"]), after=st.booleans(), skip=st.integers(0, 4))
    def arm(self, how, after, skip):
        self.stage.arm(Fault(how, after and how != "unavailable", skip))

    # The end

    def teardown(self):
        try:
            if not self.stage.failed:
                self.stage.drive_to_rest()
                assert check_hub(self.url) == []
        finally:
            self.stage.close()


def test_a_task_hub_does_what_the_model_says(database_url):
    machine = type("TaskHub", (TaskHub,), {"url": database_url})
    run_state_machine_as_test(machine, settings=settings(
        max_examples=int(EXAMPLES or 25), stateful_step_count=STEPS, derandomize=EXAMPLES is None, deadline=None,
        database=None, print_blob=True, suppress_health_check=list(HealthCheck)))
