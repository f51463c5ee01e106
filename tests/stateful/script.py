"""The orchestrators of the stateful test: scripts of steps, replayed from history as an SDK's worker does.

A script comes in as the orchestration's input: `{"salt", "round", "seen", "steps"}`. Everything that it is told it
notes in `seen`, which is its output in the end, so that an event which is lost, doubled or out of order shows there too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from stateful.words import COMPLETED, FAILED, TERMINATED, Word

SECOND = 1_000_000
_RESULTS = ("task done", "task failed", "child done", "child failed", "timer fired")


@dataclass(frozen=True)
class Answer:
    """What a turn answers: its new actions, in order of id, and the custom status."""

    actions: tuple[Word, ...]
    note: str | None


@dataclass
class Replay:
    """One run of a script over its history. `now` is the time of the last turn, microseconds."""

    now: int = 0
    steps: list[Any] = field(default_factory=list)
    salt: str = ""
    round: int = 0
    seen: list[str] = field(default_factory=list)
    unread: list[Word] = field(default_factory=list)
    open: set[int] = field(default_factory=set)  # ids that the present step waits for
    held: list[Word] | None = None  # what came while suspended
    actions: list[Word] = field(default_factory=list)
    again: list[Any] | None = None
    note: str | None = None
    number: int = 0

    def run(self, past: Iterable[Word], new: Iterable[Word], now: int) -> Answer:
        """Replay the past, take what is new, and return what comes of it."""
        for told in past:
            self.take(told)
        recorded, self.now = len(self.actions), now
        for told in new:
            self.take(told)
        if self.again is not None:
            following = {"salt": self.salt, "round": self.round + 1, "seen": self.seen, "steps": self.again}
            self.act("again", json.dumps(following), tuple(self.unread))
        return Answer(tuple(self.actions[recorded:]), self.note)

    def take(self, told: Word) -> None:
        """Take one event."""
        kind = told[0]
        if kind == "resumed" and self.held is not None:
            held, self.held = self.held, None
            for one in held:
                self.take(one)
        elif kind == "terminated" and not self.ended:
            self.act("complete", TERMINATED, told[1], None)
        elif kind == "suspended":
            self.held = [] if self.held is None else self.held
        elif self.held is not None:
            self.held.append(told)
        elif kind == "started":
            for name, value in json.loads(told[3]).items():
                setattr(self, name, value)
            self.go_on()
        elif kind == "event":
            self.unread.append(told)
            self.go_on()
        elif kind in _RESULTS and not self.ended:
            self.seen.append(" ".join(map(str, told)))
            self.open.discard(told[1])
            self.go_on()

    @property
    def ended(self) -> bool:
        """Whether nothing runs any more."""
        return self.again is not None or (bool(self.actions) and self.actions[-1][0] == "complete")

    def act(self, kind: str, *rest: object) -> int:
        """Issue an action."""
        self.number += 1
        self.actions.append((kind, self.number, *rest))
        return self.number

    def token(self) -> str:
        """Return a text that no other action has."""
        return f"{self.salt}.{self.round}.{self.number + 1}"

    def go_on(self) -> None:
        """Do steps until one has to wait."""
        while not self.open and not self.ended:
            if not self.steps:
                self.act("complete", COMPLETED, json.dumps(self.seen), None)
            elif not self.step(*self.steps[0]):
                return
            else:
                self.steps = self.steps[1:]

    def step(self, kind: str, *rest: Any) -> bool:
        """Do one step; False: not yet."""
        match kind, rest:
            case "work", (count, waits):
                made = {self.act("task", "do", self.token()) for _ in range(count)}
                self.open |= made if waits else set()
            case "sleep", (seconds,):
                self.open.add(self.act("timer", self.now + int(seconds * SECOND)))
            case "expect", (name,):
                found = next((told for told in self.unread if told[1] == name), None)
                if found is None:
                    return False
                self.unread.remove(found)
                self.seen.append(f"event {found[2]}")
            case "start", (steps, instance, waits):
                child = {"salt": self.token(), "round": 0, "seen": [], "steps": steps}
                number = self.act("child", "script", instance, json.dumps(child))
                self.open |= {number} if waits else set()
            case _:
                self.say(kind, *rest)
        return True

    def say(self, kind: str, *rest: Any) -> None:
        """Do a step that waits for nothing."""
        match kind, rest:
            case "tell", (target, name):
                self.act("tell", target, name, self.token())
            case "kill", (target, recurse):
                self.act("kill", target, self.token(), recurse)
            case "note", (status,):
                self.note = status
            case "fail", ():
                self.act("complete", FAILED, None, ("ScriptFailed", self.token()))
            case "again", (steps,):
                self.again = steps
