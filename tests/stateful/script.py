"""The orchestrators of the stateful test: scripts of steps, replayed from history as an SDK's worker does.

Of what they have asked for they answer what the history does not hold: also what a rewind took out of it.

A script comes in as the orchestration's input: `{"salt", "round", "seen", "steps"}`. Everything that it is told it
notes in `seen`, which is its output in the end, so that an event which is lost, doubled or out of order shows there too.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from durabletask_sql.ids import guid_of
from stateful.words import COMPLETED, FAILED, TERMINATED, Word

SECOND = 1_000_000
_RECORDED = ("task", "timer", "child", "tell", "signal", "call", "lock", "unlock")  # a termination of another instance leaves no trace in a history
_WAITS, _MUST_SUCCEED = 1, 2  # how a step waits for what it asked for
_RESULTS = ("task done", "task failed", "child done", "child failed", "timer fired", "call done", "call failed", "granted")


@dataclass(frozen=True)
class Answer:
    """What a turn answers: its new actions, in order of id, and the custom status."""

    actions: tuple[Word, ...]
    note: str | None


@dataclass
class Replay:
    """One run of a script over its history. `now` is the time of the last turn, microseconds.

    `execution` makes what it sends its own, `mended` is how many of its steps to fail have been put right by now.
    """

    execution: str
    mended: int = 0
    now: int = 0
    steps: list[Any] = field(default_factory=list)
    salt: str = ""
    round: int = 0
    seen: list[str] = field(default_factory=list)
    unread: list[Word] = field(default_factory=list)
    open: set[int | str] = field(default_factory=set)  # ids that the present step waits for
    vital: set[int | str] = field(default_factory=set)  # those of them whose failure fails the script
    tried: str = ""  # the input of the task that the present step tries
    attempts: int = 0  # how often it may still do so
    under_one_number: bool = False
    held: list[Word] | None = None  # what came while suspended
    actions: list[Word] = field(default_factory=list)
    again: list[Any] | None = None
    section: tuple[str, list[str]] | None = None
    note: str | None = None
    number: int = 0

    def run(self, past: Iterable[Word], new: Iterable[Word], now: int) -> Answer:
        """Replay the past, take what is new, and return what comes of it."""
        recorded, self.now = Counter[tuple[str, int]](), now
        for told in past:
            self.take(told)
            recorded[told[:2]] += told[0] in _RECORDED
        asked, self.actions = self.actions, []
        for said in asked:
            if recorded[said[:2]]:
                recorded[said[:2]] -= 1
            elif said[0] != "kill":
                self.actions.append(said)
        for told in new:
            self.take(told)
        if self.again is not None:
            following = {"salt": self.salt, "round": self.round + 1, "seen": self.seen, "steps": self.again}
            self.act("again", json.dumps(following), tuple(self.unread))
        return Answer(tuple(self.actions), self.note)

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
            self.take_result(told)
            self.go_on()

    def take_result(self, told: Word) -> None:
        """Take the result of what was asked for."""
        self.seen.append(" ".join(map(str, told)))
        if told[1] in self.open:
            self.open.discard(told[1])
            if told[0].endswith("failed") and told[1] in self.vital:
                self.fail(told[1])

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
        """Return a text that no other action of this script has."""
        return f"{self.salt}.{self.round}.{self.number + 1}"

    def own_token(self) -> str:
        """Return a text that no action of another execution has either."""
        return f"{self.token()}@{self.execution[:8]}"

    def wait_for(self, made: set[Any], how: int) -> None:
        """Have the present step wait for what it asked for."""
        self.open |= made if how else set()
        self.vital |= made if how == _MUST_SUCCEED else set()

    def attempt(self, number: int | None = None) -> None:
        """Ask for the task that the present step tries, under a new number unless one is given."""
        if number is None:
            number = self.act("task", "do", self.tried)
        else:
            self.actions.append(("task", number, "do", self.tried))
        self.attempts -= 1
        self.wait_for({number}, _MUST_SUCCEED)

    def fail(self, number: Any) -> None:
        """Follow the failure of what must succeed: try it again, or fail with it."""
        if self.attempts:
            self.attempt(number if self.under_one_number else None)
        else:
            self.act("complete", FAILED, None, ("ScriptFailed", f"{number}"))

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
                self.attempts = 0
                self.wait_for({self.act("task", "do", self.own_token()) for _ in range(count)}, waits)
            case "try", (self.attempts, self.under_one_number):
                self.tried = self.token()
                self.attempt()
            case "sleep", (seconds, waits):
                self.wait_for({self.act("timer", self.now + int(seconds * SECOND))}, waits)
            case "expect", (name,):
                found = next((told for told in self.unread if told[1] == name), None)
                if found is None:
                    return False
                self.unread.remove(found)
                self.seen.append(f"event {found[2]}")
            case "start", (steps, instance, waits):
                child = {"salt": self.own_token(), "round": 0, "seen": [], "steps": steps}
                self.attempts = 0
                self.wait_for({self.act("child", "script", instance, json.dumps(child))}, waits)
            case "signal" | "call" | "lock" | "unlock", _:
                self.use_entities(kind, *rest)
            case _:
                self.say(kind, *rest)
        return True

    def use_entities(self, kind: str, *rest: Any) -> None:
        """Do a step that concerns entities. In a critical section no other is begun."""
        match kind, rest:
            case "signal", (target, name, detail, delay):
                due = None if delay is None else self.now + delay * SECOND
                self.act("signal", target, name, json.dumps([self.own_token(), detail]), due)
            case "call", (target, name, detail, waits):
                request = self.guid()
                self.act("call", target, name, json.dumps([self.own_token(), detail]), request)
                self.attempts = 0
                self.wait_for({request}, waits)
            case "lock", (wanted,) if self.section is None:
                self.section = (self.guid(), sorted(set(wanted)))
                self.act("lock", self.section[0], tuple(wanted))
                self.open.add(self.section[0])
            case "unlock", () if self.section is not None:
                (section, held), self.section = self.section, None
                for target in held:
                    self.act("unlock", section, target)

    def guid(self) -> str:
        """Return a GUID that no other action of this script has."""
        return guid_of(hashlib.md5(self.token().encode(), usedforsecurity=False).hexdigest())

    def say(self, kind: str, *rest: Any) -> None:
        """Do a step that waits for nothing."""
        match kind, rest:
            case "tell", (target, name):
                self.act("tell", target, name, self.token())
            case "kill", (target, recurse):
                self.act("kill", target, self.token(), recurse)
            case "note", (status,):
                self.note = status
            case "fail", () if self.mended:
                self.mended -= 1
            case "fail", ():
                self.act("complete", FAILED, None, ("ScriptFailed", self.token()))
            case "again", (steps,):
                self.again = steps
