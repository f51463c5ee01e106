"""Rules of entities for the machine of the stateful test: signals, calls and locks, their answers, and clean-up."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.model.entities import EntityQuery
from durabletask_sql.service.abstraction import Signal
from stateful.answers import LONGEST_DELAY
from stateful.rules import IDS, NAMES, step, steps_of

ENTITIES = st.sampled_from(["@e@x", "@e@y"])
DELAYS = st.sampled_from([None, None, 0, 30])


def operations() -> st.SearchStrategy[tuple[str, object]]:
    """Operations: a name, and what it needs beside a text of its own."""
    return st.one_of(
        st.tuples(st.sampled_from(["add", "add", "delete", "fail", "look"]), st.none()),
        st.tuples(st.just("tell"), st.tuples(ENTITIES, DELAYS).map(list)),
        st.tuples(st.just("start"), st.tuples(IDS, steps_of(0)).map(list)))


def entity_scripts() -> st.SearchStrategy[list[object]]:
    """Scripts that use entities."""
    lock = st.tuples(st.just("lock"), st.lists(ENTITIES, min_size=1, max_size=3))
    return st.lists(st.one_of(
        st.tuples(ENTITIES, operations(), DELAYS).map(lambda one: ("signal", one[0], *one[1], one[2])),
        st.tuples(ENTITIES, operations(), st.integers(0, 2)).map(lambda one: ("call", one[0], *one[1], one[2])),
        lock, lock, st.tuples(st.just("unlock")), step(1), st.tuples(st.just("expect"), NAMES)).map(list), max_size=6)


class EntityRules:
    """Part of `EntityHub`."""

    stage: Any
    now: int
    salt: Any
    some: Any

    @rule(entity=ENTITIES, operation=operations(), delay=DELAYS)
    def signal(self, entity, operation, delay):
        data = json.dumps([self.salt(), operation[1]])
        now, due = self.now, None if delay is None else self.now + delay * MICROSECONDS
        signal = Signal(entity, operation[0], data, due=due)
        self.stage.step(lambda: self.stage.entities.signal(signal), lambda model: model.entities.operate(
            entity, operation[0], data, due=due if due is not None and due > now else None))

    @rule(entity=ENTITIES)
    def purge_entity(self, entity):
        self.stage.purged.add(entity)
        self.stage.step(lambda: self.stage.entities.purge(entity), lambda model: model.entities.purge(entity))

    @rule()
    def release_orphans(self):
        """Each end frees its own locks, so there is nothing to release."""
        async def release():
            return (await self.stage.entities.release_orphans(None)).released

        self.stage.step(release, lambda _: frozenset())

    @rule(prefix=st.sampled_from(["", "@e", "@e@y", "@f"]), transient=st.booleans(), size=st.integers(1, 3))
    def query_entities(self, prefix, transient, size):
        async def pages():
            wanted, found = EntityQuery(prefix=prefix, transient=transient, states=True, page_size=size), []
            while True:
                page = await self.stage.entities.query(wanted)
                found += [(one.row.instance_id, one.row.state, one.row.lock and one.row.lock.instance_id)
                          for one in page.entities]
                if page.next is None:
                    return found
                wanted = replace(wanted, after=page.next)

        self.stage.step(pages, lambda model: model.entities.matching(prefix, transient=transient))

    @precondition(lambda self: self.stage.held_batches())
    @rule(data=st.data(), fails=st.booleans())
    def answer_batch(self, data, fails):
        """Answer some operations of a batch; at least one, unless the batch fails."""
        batch = self.some(data, self.stage.held_batches())
        count = data.draw(st.integers(0 if fails else 1, len(batch.operations)))
        self.stage.answer_batch(batch, count, fails=fails)

    @precondition(lambda self: self.stage.held_batches())
    @rule(data=st.data())
    def abandon_batch(self, data):
        self.stage.abandon_batch(self.some(data, self.stage.held_batches()), self.now + LONGEST_DELAY)

    @precondition(lambda self: self.stage.spent_batches)
    @rule(data=st.data())
    def answer_batch_late_or_again(self, data):
        batch = self.some(data, self.stage.spent_batches)
        self.stage.answer_batch(batch, len(batch.operations))
