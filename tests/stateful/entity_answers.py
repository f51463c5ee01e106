"""The workers' side of entities in the stateful test: what operations do, and whether what is offered is right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from durabletask_sql.clock import MICROSECONDS, FakeClock
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.pb_time import timestamp
from stateful.bench import Bench, OfferedBatch
from stateful.entity_model import Batch, BatchAnswer
from stateful.model import Model


def run(operations: Sequence[tuple[str, str]], state: str | None, now: int) -> BatchAnswer:
    """Run operations: each input is a text of its own, and what else the operation needs."""
    answer = BatchAnswer((), state)
    for name, data in operations:
        answer = _operate(answer, name, json.loads(data), now)
    return answer


def _operate(before: BatchAnswer, name: str, given: tuple[str, Any], now: int) -> BatchAnswer:
    own, detail = given
    good, text = True, before.state or "nothing"
    match name:
        case "add":
            text = f"{before.state or ''}{own} "
            before = replace(before, state=text)
        case "delete":
            before = replace(before, state=None)
        case "fail":
            good, text = False, "OperationFailed"
        case "tell":
            target, delay = detail
            due = None if delay is None else now + delay * MICROSECONDS
            before = replace(before, signals=(*before.signals, (target, "add", json.dumps([f"{own}+", None]), due)))
        case "start":
            instance, steps = detail
            data = json.dumps({"salt": own, "round": 0, "seen": [], "steps": steps})
            before = replace(before, starts=(*before.starts, (instance, data)))
    return replace(before, results=(*before.results, (good, text)))


def response(token: str, answer: BatchAnswer) -> pb.EntityBatchResult:
    """Return an answer as the wire has it."""
    made = pb.EntityBatchResult(completionToken=token)
    for good, text in answer.results:
        result = made.results.add()
        if good:
            result.success.result.value = text
        else:
            result.failure.failureDetails.errorType = text
    for target, name, data, due in answer.signals:
        signal = made.actions.add().sendSignal
        signal.instanceId, signal.name, signal.input.value = target, name, data
        if due is not None:
            signal.scheduledTime.CopyFrom(timestamp(due))
    for instance, data in answer.starts:
        start = made.actions.add().startNewOrchestration
        start.instanceId, start.name, start.input.value = instance, "script", data
    if answer.state is not None:
        made.entityState.value = answer.state
    if answer.failure is not None:
        made.failureDetails.errorType = answer.failure
    return made


class EntityAnswers:
    """Part of `Stage`: batches of entities."""

    benches: dict[str, Bench]
    connected: set[str]
    resting: dict[str, int]
    clock: FakeClock
    model: Model
    board: Any
    step: Any
    losses: Any
    note_delivery: Any
    is_tight: bool
    batches: dict[str, Batch | None]  # by token; None: its answer does not count
    spent_batches: list[OfferedBatch]
    purged: set[str]  # entities whose state was deleted, which their owner may not know

    def held_batches(self) -> list[OfferedBatch]:
        return [batch for name in sorted(self.connected) for batch in self.benches[name].batches.values()]

    def answer_batch(self, offered: OfferedBatch, count: int, *, fails: bool = False) -> None:
        """Answer so many operations of a batch, or have it fail after them; a stale one changes nothing."""
        known = self._take_batch(offered)
        now = self.clock.now()
        answer = run(offered.operations[:count], offered.state, now)
        if fails:
            answer = replace(answer, failure="BatchFailed")

        def effect(model: Model) -> None:
            if known is not None and model.entities.is_current(known):
                model.commit_batch(known, answer, now)

        self.step(lambda: self.board.complete_entity(response(offered.token, answer)), effect)
        if known is not None:
            self.note_delivery(offered.entity)

    def abandon_batch(self, offered: OfferedBatch, rests_until: int) -> None:
        """Give a batch back: it comes again, after a while."""
        self._take_batch(offered)
        self.resting[offered.entity] = rests_until
        self.step(lambda: self.board.abandon_entity(offered.token), lambda _: None)

    def _take_batch(self, offered: OfferedBatch) -> Batch | None:
        for bench in self.benches.values():
            if bench.batches.pop(offered.token, None) is not None:
                self.spent_batches.append(offered)
        known, self.batches[offered.token] = self.batches[offered.token], None
        return known

    def put_down_batches(self, name: str) -> None:
        """What a bench holds is not its own any more."""
        held = self.benches[name].batches
        self.losses.update(batch.entity for batch in held.values())
        self.spent_batches += held.values()
        self.batches.update(dict.fromkeys(held))
        held.clear()

    def frozen(self) -> list[frozenset[str]]:
        """Return which entities may do nothing for now: those out, and perhaps those that were given back.

        One whose memory was lost meanwhile may have gone on although an old batch of it is still out.
        """
        out = frozenset(batch.entity for batch in self.held_batches())
        resting = frozenset(name for name, until in self.resting.items() if until > self.clock.now())
        return list(dict.fromkeys([out | resting, out, frozenset[str]()]))

    def look_at_batches(self) -> None:
        """Every batch that is offered is right, and every entity that should be offered is."""
        now, latest = self.clock.now(), {batch.entity: batch for batch in sorted(self.held_batches(), key=_number)}
        for batch in self.held_batches():
            if latest[batch.entity] is not batch:
                self.batches[batch.token] = None
            elif batch.token not in self.batches:
                self.batches[batch.token] = self._known(batch, now)
        if self.connected & {"first", "second"} and not self.is_tight:
            idle = [one.id for one in self.model.entities.all.values()
                    if one.runnable(now - MICROSECONDS // 1000) and one.id not in latest
                    and self.resting.get(one.id, 0) <= now]
            assert not idle, f"no batch was offered of {idle}"

    def _known(self, offered: OfferedBatch, now: int) -> Batch | None:
        """Return what the model knows of a batch; None for one from what its owner remembers of before a purge."""
        entity = self.model.entities.at(offered.entity)
        if offered.state != entity.state:
            assert entity.id in self.purged, f"{entity.id} has the state {entity.state!r}, a batch says {offered.state!r}"
            return None
        self.purged.discard(entity.id)
        waiting = entity.runnable(now)
        due = {one.number for _, one in entity.delayed}
        numbers = list[int]()
        for name, data in offered.operations:
            while waiting and (waiting[0].name, waiting[0].input) != (name, data) and waiting[0].number not in due:
                waiting.pop(0)  # it came after the batch was made, which holds delayed ones as well
            first = [(one.name, one.input) for one in waiting[:1]]
            assert first == [(name, data)], f"{entity.id} was offered {offered.operations} of {entity.runnable(now)}"
            numbers.append(waiting.pop(0).number)
        return Batch(entity.id, entity.version, tuple(numbers))


def _number(batch: OfferedBatch) -> int:
    return batch.number
