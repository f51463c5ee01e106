"""What a rewind makes of a failed instance and of what is below it, said as simply as possible.

What failed, and what was still under way, leaves the history, unless the same was asked for again after it had failed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

from durabletask_sql.model.status import Status
from stateful.instances import Instance, Timer, beginning, report_of
from stateful.model import Model
from stateful.words import Word


@dataclass
class Askings:
    """What a history asks for, by where it stands: what is open, and what failed and was not asked for again."""

    open: list[int] = field(default_factory=list)
    failed: list[tuple[int, int]] = field(default_factory=list)  # where an asking stands, and where its failure

    @property
    def unanswered(self) -> list[int]:
        return sorted([*self.open, *(asked for asked, _ in self.failed)])


def askings(history: list[Word], kind: str) -> Askings:
    """Return what became of everything of a kind that a history asks for."""
    waiting, failed = dict[int | str, int](), list[tuple[int, int]]()
    for at, told in enumerate(history):
        if told[0] == kind:
            waiting[_number(told)] = at
        elif told[0] in (f"{kind} done", f"{kind} fired", f"{kind} failed") or (kind, told[0]) == ("lock", "granted"):
            asked = waiting.pop(told[1], None)
            if asked is not None and told[0].endswith("failed"):
                failed.append((asked, at))
    final = [(asked, at) for asked, at in failed
             if not any(_alike(later, history[asked]) for later in history[at:])]
    return Askings(list(waiting.values()), final)


def _alike(told: Word, asked: Word) -> bool:
    """Whether this asks again: under the same number, or the same under another one."""
    return told[0] == asked[0] and (_number(told) == _number(asked) or _subject(told) == _subject(asked))


def _number(told: Word) -> int | str:
    """Return what an answer names: a call's request, a lock's section, else the number of the action."""
    return told[{"call": 5, "lock": 2}.get(told[0], 1)]


def _subject(told: Word) -> Word:
    """Return what is asked for: the input of a task, the id of a child, a call's entity, operation and input."""
    return told[2:5] if told[0] == "call" else told[3:4]


def _holds_locks(history: list[Word]) -> bool:
    """Whether a history ends inside a critical section whose locks were granted, or with some of them given back."""
    open_sections = {history[at][2] for at in askings(history, "lock").open}
    held = {told[2]: len(set(told[3])) for told in history if told[0] == "lock"}
    for told in history:
        if told[0] == "unlock":
            held[told[2]] -= 1
    return any(count for section, count in held.items() if section not in open_sections)


def rewind(model: Model, instance_id: str, reason: str, now: int) -> str:
    """Rewind an instance, with the failed sub-orchestrations below it."""
    root = model.instances.get(instance_id)
    if root is None:
        return "unknown"
    if root.status is not Status.FAILED:
        return "live"
    trial = copy.deepcopy(model)
    if not _rewind(trial, trial.instances[instance_id], reason, now):
        return "live"
    _rewind(model, root, reason, now)
    return "ok"


def _rewind(model: Model, root: Instance, reason: str, now: int) -> bool:
    """Rewind an instance; False: one that would be rewound with it has failed with locks in its hands."""
    family = _Family(model, now)
    family.begin(root)
    while family.waiting:
        parent = family.waiting.pop(0)
        if _holds_locks(parent.history):
            return False
        old = parent.execution
        for number, child_id, data in _begin_again(model, parent, reason):
            family.settle(parent, (parent.id, old, number), child_id, data)
    for parent, told in family.told:
        model.deliver(parent.id, told, parent.execution)
    return True


class _Family:
    """Those that are rewound, and what becomes of the sub-orchestrations that they wait for."""

    def __init__(self, model: Model, now: int) -> None:
        self.model, self.now = model, now
        self.before = {one.id: (one, one.parent) for one in model.instances.values()}
        self.waiting: list[Instance] = []
        self.taken: set[str] = set()  # ids of those that begin, and can begin only once
        self.told: list[tuple[Instance, Word]] = []

    def begin(self, failed: Instance) -> None:
        self.waiting.append(failed)
        self.taken.add(failed.id)

    def settle(self, parent: Instance, link: tuple[str, int, int], child_id: str, data: str) -> None:
        """Link a sub-orchestration to its parent's new execution; create it again where it is gone."""
        child, linked_to = self.before.get(child_id, (None, None))
        number, is_own = link[2], child is not None and linked_to == link
        if child is None or (not is_own and child.ended) or (child.status is Status.FAILED and child_id in self.taken):
            self._create_again(parent, number, child_id, data)
        elif not is_own:
            self.told.append((parent, ("child failed", number, "OrchestrationAlreadyExists")))
        else:
            if child_id not in self.taken:
                child.parent = (parent.id, parent.execution, number)
                child.links += not child.ended
            if child.status is Status.FAILED:
                self.begin(child)
            elif child.ended:
                self.told.append((parent, report_of(child, number)))

    def _create_again(self, parent: Instance, number: int, child_id: str, data: str) -> None:
        """Create a sub-orchestration as it was created first, unless its id is taken."""
        if child_id in self.taken:
            self.told.append((parent, ("child failed", number, "OrchestrationAlreadyExists")))
            return
        self.taken.add(child_id)
        self.model.delete_tasks(child_id)
        old = self.model.instances.get(child_id)
        made = Instance(child_id, self.model.number(), data, self.now, parent=(parent.id, parent.execution, number),
                        generation=0 if old is None else old.generation)
        made.start = (beginning(made),)
        self.model.instances[child_id] = made


def _begin_again(model: Model, found: Instance, reason: str) -> Iterator[Word]:
    """Begin a new execution with what is left of the history; return the sub-orchestrations that it waits for."""
    history = found.history
    tasks, calls, locks, children, timers = (
        askings(history, kind) for kind in ("task", "call", "lock", "child", "timer"))
    gone = {*tasks.unanswered, *calls.unanswered, *locks.open}
    gone |= {at for _, at in (*tasks.failed, *calls.failed, *children.failed)}
    found.history = [told for at, told in enumerate(history) if at not in gone and told[0] != "completed"]
    found.history.append(("rewound", reason))
    suspensions = [told[0] for told in found.history if told[0] in ("suspended", "resumed")]
    found.status = Status.SUSPENDED if suspensions[-1:] == ["suspended"] else Status.RUNNING
    found.execution, found.rewinds, found.start = model.number(), found.rewinds + 1, ()
    found.output = found.failure = None
    found.timers = [Timer(history[at][2], model.number(), ("timer fired", history[at][1])) for at in timers.open]
    model.delete_tasks(found.id)
    return (history[at][1:2] + history[at][3:5] for at in children.unanswered)
