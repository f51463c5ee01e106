"""As much of a worker's SDK as the flows need: orchestrators are generators, replayed from their history.

A flow yields what it waits for (one `Wanted` or a list of them) and is sent the results; a failed one is raised as
`FlowError`. What an orchestrator wants without waiting it asks for by calling a method of `Flow`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import iter_events
from durabletask_sql.protocol.pb_time import micros, timestamp

SECOND = 1_000_000
COMPLETED, AGAIN, FAILED, TERMINATED = 1, 2, 3, 5

# The records of what was asked for; and what answers it: the kind of thing, the field that names it, that of the result.
_RECORDS = frozenset({"taskScheduled", "timerCreated", "subOrchestrationInstanceCreated", "eventSent",
                      "entityOperationCalled", "entityLockRequested", "entityUnlockSent"})
_ANSWERS = {
    "taskCompleted": ("task", "taskScheduledId", "result"),
    "taskFailed": ("task", "taskScheduledId", "failureDetails"),
    "timerFired": ("timer", "timerId", ""),
    "subOrchestrationInstanceCompleted": ("child", "taskScheduledId", "result"),
    "subOrchestrationInstanceFailed": ("child", "taskScheduledId", "failureDetails"),
    "entityOperationCompleted": ("call", "requestId", "output"),
    "entityOperationFailed": ("call", "requestId", "failureDetails"),
    "entityLockGranted": ("lock", "criticalSectionId", ""),
}

Body = Callable[["Flow", Any], Generator[Any, Any, Any]]


class FlowError(Exception):
    """Something that a flow waited for has failed."""


class ReplayError(Exception):
    """A history is not what this flow made: it never can be replayed."""


@dataclass(eq=False)
class Wanted:
    """Something that a flow waits for."""

    done: bool = False
    value: Any = None
    error: str | None = None


@dataclass
class Flow:
    """One replay of an orchestrator. `now` is its time in microseconds."""

    bodies: Mapping[str, Body]
    instance: str
    execution: str
    now: int = 0
    actions: list[pb.OrchestratorAction] = field(default_factory=list)
    unread: list[tuple[str, Any]] = field(default_factory=list)
    wanted: dict[Any, Wanted] = field(default_factory=dict)
    listening: list[tuple[str, Wanted]] = field(default_factory=list)
    held: list[pb.HistoryEvent] | None = None
    recorded: set[int] = field(default_factory=set)
    ended: bool = False
    body: Generator[Any, Any, Any] | None = None
    waiting: Any = None

    # What a flow asks for

    def task(self, name: str, value: Any) -> Wanted:
        action = self._act()
        action.scheduleTask.name = name
        action.scheduleTask.input.value = json.dumps(value)
        return self._want(("task", action.id))

    def nap(self, seconds: float) -> Wanted:
        action = self._act()
        action.createTimer.fireAt.CopyFrom(timestamp(self.now + int(seconds * SECOND)))
        return self._want(("timer", action.id))

    def child(self, name: str, value: Any, instance: str = "") -> Wanted:
        action = self._act()
        action.createSubOrchestration.name = name
        action.createSubOrchestration.instanceId = instance
        action.createSubOrchestration.input.value = json.dumps(value)
        return self._want(("child", action.id))

    def tell(self, target: str, name: str, value: Any) -> None:
        action = self._act()
        action.sendEvent.instance.instanceId = target
        action.sendEvent.name = name
        action.sendEvent.data.value = json.dumps(value)

    def event(self, name: str) -> Wanted:
        found = Wanted()
        for place, (told, value) in enumerate(self.unread):
            if told == name:
                del self.unread[place]
                found.done, found.value = True, value
                return found
        self.listening.append((name, found))
        return found

    def call(self, entity: str, operation: str, value: Any = None) -> Wanted:
        action = self._act()
        request = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.execution}/{action.id}"))
        asked = action.sendEntityMessage.entityOperationCalled
        asked.requestId, asked.operation, asked.targetInstanceId.value = request, operation, entity
        asked.input.value = json.dumps(value)
        return self._want(("call", request))

    def lock(self, *entities: str) -> Wanted:
        action = self._act()
        section = f"section-{action.id}"
        asked = action.sendEntityMessage.entityLockRequested
        asked.criticalSectionId = section
        asked.lockSet.extend(entities)
        return self._want(("lock", section), section)

    def unlock(self, section: str, *entities: str) -> None:
        for entity in entities:
            left = self._act().sendEntityMessage.entityUnlockSent
            left.criticalSectionId, left.targetInstanceId.value = section, entity

    def again(self, value: Any) -> None:
        """Continue as new, with the events that were not taken yet: those too that come in the same turn."""
        self._end(AGAIN, value)

    def _carry_over(self) -> None:
        for name, data in self.unread:
            event = self.actions[-1].completeOrchestration.carryoverEvents.add(eventId=-1)
            event.eventRaised.name = name
            event.eventRaised.input.value = json.dumps(data)

    def _act(self) -> pb.OrchestratorAction:
        self.actions.append(pb.OrchestratorAction(id=len(self.actions) + 1))
        return self.actions[-1]

    def _want(self, key: Any, value: Any = None) -> Wanted:
        self.wanted[key] = Wanted(value=value)
        return self.wanted[key]

    def _end(self, status: int, value: Any) -> pb.CompleteOrchestrationAction:
        self.ended = True
        end = self._act().completeOrchestration
        end.orchestrationStatus = status
        end.result.value = json.dumps(value)
        return end

    # Replay

    def run(self, past: Iterable[bytes], new: bytes) -> list[pb.OrchestratorAction]:
        """Replay the past, take what is new, and return the new actions."""
        for part in past:
            for event in iter_events(part):
                self._take(event)
        asked = {action.id for action in self.actions}
        if self.ended or not self.recorded <= asked:
            raise ReplayError(f"{self.instance}: its history records {self.recorded}, its replay asks for {asked}")
        for event in iter_events(new):
            self._take(event)
        if self.ended and self.actions[-1].completeOrchestration.orchestrationStatus == AGAIN:
            self._carry_over()
        return [action for action in self.actions if action.id not in self.recorded]

    def _take(self, event: pb.HistoryEvent) -> None:
        kind = event.WhichOneof("eventType") or ""
        body = getattr(event, kind)
        if kind == "orchestratorStarted":
            self.now = micros(event.timestamp)
        elif kind in _RECORDS:
            if event.eventId in self.recorded:
                raise ReplayError(f"{self.instance}: action {event.eventId} was recorded twice")
            self.recorded.add(event.eventId)
        elif kind == "executionTerminated":
            if not self.ended:
                self._end(TERMINATED, None).result.value = body.input.value
        elif kind == "executionSuspended":
            self.held = self.held or []
        elif kind == "executionResumed" and self.held is not None:
            held, self.held = self.held, None
            for one in held:
                self._take(one)
        elif self.held is not None:
            self.held.append(event)
        else:
            self._tell(kind, body)

    def _tell(self, kind: str, body: Any) -> None:
        if kind == "eventRaised":
            self._hear(body.name, json.loads(body.input.value))
        elif kind == "executionStarted":
            if self.body is not None:
                raise ReplayError(f"{self.instance}: it starts twice")
            self.body = self.bodies[body.name](self, json.loads(body.input.value))
        elif kind in _ANSWERS and not self.ended:
            what, number, result = _ANSWERS[kind]
            value = getattr(body, result) if result else None
            if isinstance(value, pb.TaskFailureDetails):
                self._resolve((what, getattr(body, number)), error=value.errorMessage)
            else:
                self._resolve((what, getattr(body, number)), "" if value is None else value.value)
        self._go_on()

    def _hear(self, name: str, value: Any) -> None:
        for place, (wanted, found) in enumerate(self.listening):
            if wanted == name and not self.ended:
                del self.listening[place]
                found.done, found.value = True, value
                return
        self.unread.append((name, value))

    def _resolve(self, key: Any, result: str = "", error: str | None = None) -> None:
        found = self.wanted.get(key)
        if found is None or found.done:
            raise ReplayError(f"{self.instance}: {key} answers nothing, or a second time")
        found.done, found.error = True, error
        if result:
            found.value = json.loads(result)

    def _go_on(self) -> None:
        """Run the flow until it has to wait."""
        while self.body is not None and not self.ended and _is_done(self.waiting):
            try:
                self.waiting = self._step(self.body)
            except StopIteration as end:
                if not self.ended:
                    self._end(COMPLETED, end.value)
            except FlowError as error:
                self._end(FAILED, None).failureDetails.errorMessage = str(error)

    def _step(self, body: Generator[Any, Any, Any]) -> Any:
        waiting = self.waiting
        if waiting is None:
            return next(body)
        many = waiting if isinstance(waiting, list) else [waiting]
        failed = [one.error for one in many if one.error is not None]
        if failed:
            return body.throw(FlowError(failed[0]))
        return body.send([one.value for one in many] if isinstance(waiting, list) else waiting.value)


def _is_done(waiting: Any) -> bool:
    return waiting is None or all(one.done for one in (waiting if isinstance(waiting, list) else [waiting]))
