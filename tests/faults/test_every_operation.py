"""Each scenario with one fault, at the first operation that writes, at the second, and so on, until it passes without one.

The fault is an operation of the store that fails before it takes effect, is lost on its way to COMMIT, takes effect
unheard of, or is the last one that its host ever asked for. The scenarios and their checks are the simulation's.
"""

from __future__ import annotations

import os

import pytest

from simulation.clients import SCENARIOS
from simulation.store import UNKNOWABLE
from simulation.world import Simulation, simulate

HOW = ("before", "lost", "after", "crash before", "crash after")
STEP = int(os.environ.get("DURABLETASK_SQL_FAULT_STEP", "3"))  # 1: at every operation


class OneFault(Simulation):
    """One host, one worker, one client; the `at`-th write fails."""

    host_count = worker_count = 1
    name, how, at = "", "", 0

    async def storm(self) -> None:
        """Nothing else goes wrong."""

    async def run(self) -> None:
        self.struck = False
        self.weather.strike = self._strike
        await self.run_with([self.play(self.name, self.name)])
        if not self.struck:
            self.report.trace.append("nothing failed")

    def _strike(self, operation: str) -> str:
        if operation in UNKNOWABLE:
            self.at -= 1
        if self.at or self.struck:
            return ""
        self.struck = True
        self.note("strikes", operation, self.how)
        return self.how


def run(name: str, how: str, at: int) -> bool:
    """Run a scenario; tell whether the fault struck."""
    report = simulate(0, type("OneFault", (OneFault,), {"name": name, "how": how, "at": at}))
    struck = [line for line in report.trace if " strikes " in line]
    assert report.problems == [], (struck, report.problems)
    return bool(struck)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_a_scenario_comes_out_right_whichever_operation_fails(name, how):
    first = 1 + HOW.index(how) % STEP  # the kinds take turns at which operations they strike
    at = first
    while run(name, how, at):
        at += STEP
    assert at > first  # it struck at least once
