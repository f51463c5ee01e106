"""The parts of the model: instances, and what clients, turns, timers and tasks are to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from durabletask_sql.model.status import LIVE, Status
from stateful.entity_model import Section
from stateful.words import Word


@dataclass(frozen=True)
class Request:
    """What a client asks to create. `start_at` in microseconds; `event`: a name and its data, raised with it."""

    id: str
    input: str
    dedupe: frozenset[Status] = LIVE
    start_at: int | None = None
    event: tuple[str, str] | None = None


@dataclass
class Timer:
    """Something that becomes ready at `due`: a timer's event, or a scheduled start."""

    due: int
    number: int
    told: Word


@dataclass
class Task:
    """An activity task, known by its input. `optional`: it may be gone, being unwanted and not begun."""

    instance: str
    execution: int
    id: int
    input: str
    optional: bool = False


@dataclass
class Instance:
    """An orchestration instance.

    `start` is what its execution begins with, until its next turn is committed: nothing for one that was rewound.
    `links` counts how often it was linked to another execution of its parent: what was made before counts no more.
    """

    id: str
    execution: int
    input: str | None
    created: int
    status: Status = Status.PENDING
    generation: int = 0
    scheduled: int | None = None
    start: tuple[Word, ...] | None = None
    parent: tuple[str, int, int] | None = None  # its id, its execution, the id of its action
    history: list[Word] = field(default_factory=list)
    inbox: list[Word] = field(default_factory=list)
    timers: list[Timer] = field(default_factory=list)
    output: str | None = None
    failure: tuple[str, str] | None = None
    note: str | None = None
    rewinds: int = 0
    links: int = 0
    sections: list[Section] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.status.is_terminal

    @property
    def terminations(self) -> list[Word]:
        return [told for told in self.inbox if told[0] == "terminated"]

    def due(self, now: int) -> list[Timer]:
        return sorted((timer for timer in self.timers if timer.due <= now), key=lambda one: (one.due, one.number))

    def is_runnable(self, now: int) -> bool:
        """Whether a turn would have something to take."""
        due = [timer.told[0] for timer in self.due(now)]
        if self.ended or not (self.history or self.start is not None or "started" in due):
            return False
        return bool(self.start is not None or self.inbox or due)


@dataclass(frozen=True)
class Taken:
    """What an offered turn takes: of the execution's start, of its inbox so many, these timers."""

    instance: str
    execution: int
    length: int  # of the history before it
    links: int
    new: tuple[Word, ...]
    messages: int = 0
    timers: tuple[int, ...] = ()
    terminated: Word | None = None


def beginning(made: Instance) -> Word:
    """Return what the first execution of an instance begins with."""
    parent = None if made.parent is None else (made.parent[0], made.parent[2])
    return ("started", "script", None, made.input, parent)


def report_of(ended: Instance, number: int) -> Word:
    """Return what an instance's parent is told of its end; `number` is that of the parent's action."""
    if ended.status is Status.COMPLETED:
        return ("child done", number, ended.output)
    return ("child failed", number, ended.failure[0] if ended.failure else "OrchestrationTerminated")
