"""Random clients and workers against a host that crashes, on both databases, beside a model of what a task hub does.

There are the same histories each time, so that a change which breaks nothing fails nothing. With
DURABLETASK_SQL_STATEFUL_SECONDS there are random ones, for so long each; what fails is made small and printed.
"""

from __future__ import annotations

import os
import time

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from stateful.client_rules import ClientRules
from stateful.entity_rules import EntityRules, entity_scripts
from stateful.rewind_rules import RewindRules, failing_steps
from stateful.rules import IDS, POLICIES, Rules

SECONDS = os.environ.get("DURABLETASK_SQL_STATEFUL_SECONDS")
SAME_EACH_TIME, AT_ONCE = 25, 10  # histories


class TaskHub(ClientRules, RewindRules, Rules):
    """Orchestrations, and all that clients and workers do to them."""


class RewindHub(RewindRules, Rules):
    """Fewer rules, workers that are diligent, and scripts that fail, so that more is rewound."""

    @initialize(scripts=st.lists(failing_steps(2).map(lambda steps: [*steps, ["fail"]]), min_size=2, max_size=3),
                is_tight=st.sampled_from([False, False, True]))
    def begin(self, scripts, is_tight):
        self.open(scripts, is_tight=is_tight)

    @initialize(diligence=st.sampled_from([None, 0, 0, 1, 2, 5]))
    def have_work_done(self, diligence):
        self.diligence = diligence

    def teardown(self):
        """Rewind what has failed and was not rewound."""
        try:
            if hasattr(self, "stage") and not self.stage.failed:
                for instance in self.failed():
                    self._rewind(instance, past=False)
        finally:
            super().teardown()


class EntityHub(EntityRules, RewindRules, Rules):
    """Entities, and the orchestrations that use them."""

    @initialize(scripts=st.lists(entity_scripts(), min_size=2, max_size=4))
    def begin(self, scripts):
        self.open(scripts, is_tight=False)

    @rule(instance=IDS, steps=entity_scripts(), dedupe=POLICIES)
    def create(self, instance, steps, dedupe):
        self.start(instance, steps, dedupe)


def run_machine(machine: type[Rules], url: str) -> None:
    """Run histories of this machine."""
    machine = type(machine.__name__, (machine,), {"url": url})
    if SECONDS is None:
        run_histories(machine, SAME_EACH_TIME, derandomize=True)
        return
    until = time.monotonic() + float(SECONDS)
    while time.monotonic() < until:
        run_histories(machine, AT_ONCE, derandomize=False)


def run_histories(machine: type[Rules], count: int, *, derandomize: bool) -> None:
    """Run so many of them."""
    run_state_machine_as_test(machine, settings=settings(
        max_examples=count, stateful_step_count=30, derandomize=derandomize, deadline=None, database=None,
        print_blob=True, suppress_health_check=list(HealthCheck)))


def test_a_task_hub_does_what_the_model_says(database_url):
    run_machine(TaskHub, database_url)


def test_rewinds_do_what_the_model_says(database_url):
    run_machine(RewindHub, database_url)


def test_entities_do_what_the_model_says(database_url):
    run_machine(EntityHub, database_url)
