"""Rules of rewinds for the machine of the stateful test: of what has failed, and of what has not."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from durabletask_sql.model.status import Status
from stateful import rewinding
from stateful.rules import IDS, step


def failing_steps(depth: int) -> st.SearchStrategy[list[object]]:
    """Scripts of which much must succeed, so that much fails."""
    kinds = [st.tuples(st.just("work"), st.integers(1, 2), st.just(2)), st.just(("fail",)), step(0),
             st.tuples(st.just("sleep"), st.just(30), st.just(0))]
    if depth:
        kinds += 2 * [st.tuples(st.just("start"), failing_steps(depth - 1), IDS | st.just(""), st.sampled_from([1, 2, 2]))]
    return st.lists(st.one_of(kinds).map(list), min_size=1, max_size=3)


class RewindRules:
    """Part of `TaskHub`."""

    stage: Any
    now: int
    do: Any
    salt: Any
    some: Any

    def failed(self) -> list[str]:
        return sorted(one.id for one in self.stage.model.instances.values() if one.status is Status.FAILED)

    @precondition(lambda self: self.failed())
    @rule(data=st.data(), past=st.booleans())
    def rewind(self, data, past):
        self._rewind(self.some(data, self.failed()), past=past)

    @rule(instance=st.sampled_from(["a", "b", "x"]))
    def rewind_whatever_it_is(self, instance):
        self._rewind(instance, past=False)

    def _rewind(self, instance: str, *, past: bool) -> None:
        reason, now = self.salt(), self.now

        async def rewind(service: Any) -> str:
            await service.rewind(instance, reason)
            return "ok"

        self.do(rewind, lambda model: rewinding.rewind(model, instance, reason, now), past=past)
