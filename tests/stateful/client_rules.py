"""Rules for everything else that clients and workers do to orchestrations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.model.queries import InstanceQuery, PurgeFilter
from durabletask_sql.model.status import TERMINAL, Status
from stateful.rules import IDS, LARGE, NAMES


class ClientRules:
    """Part of `TaskHub`."""

    stage: Any
    now: int
    do: Any
    salt: Any
    some: Any

    @rule(instance=IDS, name=NAMES, size=st.sampled_from([0, 0, 0, LARGE]), past=st.booleans())
    def raise_event(self, instance, name, size, past):
        data = self.salt() + "x" * size
        self.do(lambda service: service.raise_event(instance, name, data),
                lambda model: model.deliver(instance, ("event", name, data)), past=past)

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

    @rule(statuses=st.sets(st.sampled_from(Status)), since=st.sampled_from([0, 30, 300]), until=st.sampled_from([0, 5, 100]))
    def purge_by_filter(self, statuses, since, until):
        wanted = PurgeFilter(frozenset(statuses), self.now - since * MICROSECONDS, self.now - until * MICROSECONDS)

        async def purge(service):
            return (await service.purge_matching(wanted, recursive=False)).count

        ended = sorted(TERMINAL & statuses if statuses else TERMINAL)
        self.do(purge, lambda model: model.purge_matching(wanted), cut_short=[
            lambda model, some=ended[:at]: model.purge_matching(replace(wanted, statuses=frozenset(some)))
            for at in range(1, len(ended))])

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
    @rule(data=st.data())
    def abandon_task(self, data):
        self.stage.abandon_task(self.some(data, self.stage.held_tasks()))

    @precondition(lambda self: self.stage.spent_tasks)
    @rule(data=st.data(), fails=st.booleans())
    def answer_task_late_or_again(self, data, fails):
        self.stage.answer_task(self.some(data, self.stage.spent_tasks), fails=fails)
