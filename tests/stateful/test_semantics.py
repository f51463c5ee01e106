"""Random clients and workers against a host that crashes, on both databases, beside a model of what a task hub does.

DURABLETASK_SQL_STATEFUL_EXAMPLES sets how many runs (default 25 a database, the same ones each time; with the variable
set they are random ones), DURABLETASK_SQL_STATEFUL_STEPS how long each is.
"""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from checker import check_hub
from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.model.creation import CreationPolicy
from durabletask_sql.model.queries import InstanceQuery, PurgeFilter
from durabletask_sql.model.status import LIVE, TERMINAL, Status
from durabletask_sql.service.abstraction import NewInstance
from stateful.faults import Fault
from stateful.model import Request
from stateful.stage import Stage

EXAMPLES = os.environ.get("DURABLETASK_SQL_STATEFUL_EXAMPLES")
STEPS = int(os.environ.get("DURABLETASK_SQL_STATEFUL_STEPS", "30"))

_hubs = itertools.count()

LARGE = 70_000  # characters, beyond what stays in a history row
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
        self.stage: Stage

    @property
    def now(self) -> int:
        return self.stage.clock.now()

    def salt(self) -> str:
        return f"s{next(self.salts)}"

    def do(self, operation, effect, *, past=False) -> None:
        """Do something through the host's service, or past it as another process does."""
        if past:
            self.stage.step_past_the_owner(operation, effect)
        else:
            self.stage.step(lambda: operation(self.stage.service), effect)

    # Clients

    @initialize(is_tight=st.sampled_from([False, False, True]))
    def begin(self, is_tight):
        self.stage = Stage(self.url, f"hub-{next(_hubs)}", is_tight=is_tight)
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

        async def create(service):
            return await service.create(new) and "ok"

        self.do(create, lambda model: model.create(request, now))

    @rule(instance=IDS, name=NAMES, size=st.sampled_from([0, 0, 0, LARGE]), past=st.booleans())
    def raise_event(self, instance, name, size, past):
        data = self.salt() + "x" * size
        self.do(lambda service: service.raise_event(instance, name, data),
                lambda model: model.deliver(instance, ("event", name, data)), past=past)

    @rule(instance=IDS, recurse=st.booleans(), past=st.booleans())
    def terminate(self, instance, recurse, past):
        salt = self.salt()
        self.do(lambda service: service.terminate(instance, salt, recursive=recurse),
                lambda model: model.terminate(instance, salt, recurse=recurse), past=past)

    @rule(instance=IDS)
    def suspend(self, instance):
        salt = self.salt()
        self.do(lambda service: service.suspend(instance, salt),
                lambda model: model.deliver(instance, ("suspended", salt)))

    @rule(instance=IDS)
    def resume(self, instance):
        salt = self.salt()
        self.do(lambda service: service.resume(instance, salt),
                lambda model: model.deliver(instance, ("resumed", salt)))

    @rule(instance=IDS, recursive=st.booleans())
    def purge(self, instance, recursive):
        async def purge(service):
            return (await service.purge([instance], recursive=recursive)).count

        self.do(purge, lambda model: model.purge(instance, recursive=recursive))

    @rule(statuses=st.sets(st.sampled_from(Status)), since=st.sampled_from([0, 30, 300]), until=st.sampled_from([0, 5, 100]))
    def purge_by_filter(self, statuses, since, until):
        wanted = PurgeFilter(frozenset(statuses), self.now - since * MICROSECONDS, self.now - until * MICROSECONDS)

        async def purge(service):
            return (await service.purge_matching(wanted, recursive=False)).count

        self.do(purge, lambda model: model.purge_matching(wanted))

    @rule(instance=IDS)
    def restart(self, instance):
        now = self.now

        async def restart(service):
            return await service.restart(instance, with_new_id=False) and "ok"

        if self.stage.model.may_restart(instance):
            self.do(restart, lambda model: model.restart(instance, now))

    @rule(statuses=st.sets(st.sampled_from(Status)), prefix=st.sampled_from(["", "a", "b:", "x"]), size=st.integers(1, 3))
    def query(self, statuses, prefix, size):
        async def pages(service):
            query, found = InstanceQuery(frozenset(statuses), prefix=prefix, page_size=size, payloads=True), []
            while True:
                page = await service.query(query)
                assert len(page.states) <= size
                found += [(state.row.instance_id, state.row.status, state.input, state.output) for state in page.states]
                if page.next is None:
                    return sorted(found)
                query = replace(query, after=page.next)

        self.do(pages, lambda model: model.matching(statuses, prefix))

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

    @precondition(lambda self: self.stage.held())
    @rule(data=st.data())
    def abandon_turn(self, data):
        self.stage.abandon_turn(self.some(data, self.stage.held()))

    @precondition(lambda self: self.stage.held())
    @rule(data=st.data())
    def answer_invalidly(self, data):
        self.stage.answer_invalidly(self.some(data, self.stage.held()))

    @precondition(lambda self: self.stage.held_tasks())
    @rule(data=st.data(), fails=st.booleans(), size=st.sampled_from([0, 0, LARGE]))
    def answer_task(self, data, fails, size):
        self.stage.answer_task(self.some(data, self.stage.held_tasks()), fails=fails, size=size)

    @precondition(lambda self: self.stage.held_tasks())
    @rule(data=st.data())
    def abandon_task(self, data):
        self.stage.abandon_task(self.some(data, self.stage.held_tasks()))

    @precondition(lambda self: self.stage.spent_tasks)
    @rule(data=st.data(), fails=st.booleans())
    def answer_task_late_or_again(self, data, fails):
        self.stage.answer_task(self.some(data, self.stage.spent_tasks), fails=fails)

    @rule(name=st.sampled_from(["first", "second", "orchestrations", "activities"]))
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
        if not hasattr(self, "stage"):
            return
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
