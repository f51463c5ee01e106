"""What a task hub does, said as simply as possible: dictionaries and lists, one thing after the other, no SQL, no IO.

Everything that a client or worker does takes effect at once and whole. Messages are tuples (see `words`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from durabletask_sql.model.queries import PurgeFilter
from durabletask_sql.model.status import Status
from stateful.entity_model import Batch, BatchAnswer, Entities, Owner
from stateful.instances import Instance, Request, Taken, Task, Timer, beginning, report_of
from stateful.words import Word

# Results belong to the execution that asked for them; all other messages reach whichever execution runs.
RESULTS = ("task done", "task failed", "timer fired", "child done", "child failed", "call done", "call failed", "granted")


class Model:
    """A task hub."""

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.tasks: dict[str, Task] = {}
        self.entities = Entities(self.deliver)
        self.numbers = 0

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    # Clients

    def create(self, request: Request, now: int) -> str:
        """Create; return "ok", "exists" or "invalid"."""
        old = self.instances.get(request.id)
        if old is not None and old.status in request.dedupe:
            return "exists"
        if old is not None and not old.ended and Status.TERMINATED in request.dedupe:
            return "invalid"
        if old is not None:
            self.delete_tasks(old.id)
            self._leave_sections(old)
            if not old.ended and old.parent is not None and old.parent[0] != old.id:
                parent, execution, number = old.parent
                self.deliver(parent, ("child failed", number, "OrchestrationReplaced"), execution)
        made = Instance(request.id, self.number(), request.input, now,
                        generation=0 if old is None else old.generation + 1)
        self.instances[made.id] = made
        begin = beginning(made)
        if request.start_at is not None and request.start_at > now:
            made.scheduled = request.start_at
            made.timers.append(Timer(made.scheduled, self.number(), begin))
        else:
            made.start = (begin,)
        if request.event is not None:
            self.deliver(made.id, ("event", *request.event))
        return "ok"

    def terminate(self, instance_id: str, reason: str, *, recurse: bool) -> None:
        found = self.instances.get(instance_id)
        if found is not None and not found.ended and not found.history:
            self._end(found, Status.TERMINATED, reason, None)
        else:
            self.deliver(instance_id, ("terminated", reason, recurse))

    def purge(self, instance_id: str, *, recursive: bool, spared: int = 0) -> int:
        """Purge an ended instance, with what has ended below it if `recursive`; return how many went.

        What is deepest goes first: one that is cut short has `spared` the upper levels.
        """
        found = self.instances.get(instance_id)
        level = {instance_id} if found is not None and found.ended else set()
        levels = list[set[str]]()
        while level:
            levels.append(level)
            level = {one.id for one in self.instances.values() if recursive and one.ended and one.parent is not None
                     and one.parent[0] in level} - set[str]().union(*levels)
        gone = set[str]().union(*levels[spared:])
        for one in gone:
            self.delete_tasks(one)
            del self.instances[one]
        return len(gone)

    def purge_matching(self, wanted: PurgeFilter) -> int:
        """Purge what has ended and matches; statuses that are not terminal match nothing."""
        first, last = wanted.created_from or 0, wanted.created_to or 0
        gone = [one.id for one in self.instances.values() if one.ended and first <= one.created < last
                and (not wanted.statuses or one.status in wanted.statuses)]
        return sum(self.purge(one, recursive=False) for one in gone)

    def may_restart(self, instance_id: str) -> bool:
        """Whether the activities of a second run can be told from those of the first, which have the same inputs."""
        found = self.instances.get(instance_id)
        salt = "" if found is None else json.loads(found.input or "{}").get("salt")
        return not any(known_by.startswith(f"{salt}.") for known_by in self.tasks)

    def restart(self, instance_id: str, now: int) -> str:
        """Begin an ended instance anew from its input."""
        found = self.instances.get(instance_id)
        if found is None:
            return "unknown"
        return self.create(Request(instance_id, found.input or ""), now) if found.ended else "live"

    def matching(self, statuses: Collection[Status], prefix: str) -> list[tuple[str, Status, str | None, str | None]]:
        """What a query finds, in order of ids."""
        return sorted((one.id, one.status, one.input, one.output) for one in self.instances.values()
                      if one.id.startswith(prefix) and (not statuses or one.status in statuses))

    def deliver(self, instance_id: str, told: Word, execution: int | None = None,
                parent: tuple[str, int] | None = None) -> None:
        """Put a message into an instance's inbox; one that nobody can take any more is dropped.

        One that a `parent` sends, an execution of an instance, is for what that has started.
        """
        found = self.instances.get(instance_id)
        if (found is not None and not found.ended and execution in (None, found.execution)
                and (parent is None or (found.parent is not None and found.parent[:2] == parent))):
            found.inbox.append(told)

    # Turns

    def take(self, instance_id: str, past: Sequence[Word], new: Sequence[Word], now: int) -> Taken | str:
        """Return what an offered turn takes, or what is wrong with it."""
        found = self.instances.get(instance_id)
        if found is None or found.ended:
            return f"a turn of {instance_id!r} was offered, which is {found and found.status.name}"
        shown = [one for one in found.history if one[0] != "rewound"]
        if list(past) != shown:
            return f"a turn of {instance_id!r} has the history {past}, it should be {shown}"
        taken = self._take(found, list(new[1:]), now)
        if new[0] != ("turn",) or taken is None:
            return f"a turn of {instance_id!r} is told {new}; what waits is {found.start}, {found.inbox}, {found.due(now)}"
        messages, timers, terminated = taken
        return Taken(instance_id, found.execution, len(found.history), found.links, tuple(new), messages, timers, terminated)

    @staticmethod
    def _take(found: Instance, told: list[Word], now: int) -> tuple[int, tuple[int, ...], Word | None] | None:
        """Match what a turn is told with what waits: the start, the inbox in order, due timers; None: no match."""
        due, timers, messages = found.due(now), list[int](), 0
        starts = [timer for timer in due if timer.told[0] == "started"]
        first = list(found.start or [timer.told for timer in starts[:1]])
        begins = found.start is not None or bool(starts)
        if (not found.history and not begins) or told[:len(first)] != first:
            return None
        told = told[len(first):]
        timers += [timer.number for timer in starts]
        if not begins and found.inbox and found.inbox[0][0] == "terminated":
            merged = ("terminated", found.inbox[0][1], any(one[2] for one in found.terminations))
            return (0, (), merged) if told == [merged] else None
        suspended = any(one[0] == "suspended" for one in first)
        for message in found.inbox:
            if not told or suspended or message[0] == "terminated" or told[0] != message:
                break
            suspended = message[0] == "suspended"
            told, messages = told[1:], messages + 1
        for timer in [one for one in due if one.told[0] != "started"]:
            if told and not suspended and messages == len(found.inbox) and told[0] == timer.told:
                timers.append(timer.number)
                told = told[1:]
        return None if told or not (begins or messages or timers) else (messages, tuple(timers), None)

    def is_current(self, taken: Taken) -> bool:
        """Whether an answer to this turn counts."""
        found = self.instances.get(taken.instance)
        return (found is not None and not found.ended and found.execution == taken.execution
                and (len(found.history), found.links) == (taken.length, taken.links))

    def commit(self, taken: Taken, actions: Sequence[Word], note: str | None, now: int) -> None:
        """Follow a turn whose answer was committed."""
        found, told = self.instances[taken.instance], taken.new
        found.inbox = found.inbox[taken.messages:]
        found.timers = [timer for timer in found.timers if timer.number not in taken.timers]
        found.start = None
        suspensions = [one[0] for one in told if one[0] in ("suspended", "resumed")]
        suspended = suspensions[-1] == "suspended" if suspensions else found.status is Status.SUSPENDED
        found.status, found.note = Status.SUSPENDED if suspended else Status.RUNNING, note
        found.history += told
        for section in found.sections:
            section.granted |= ("granted", section.id) in told
        refusals = [refusal for said in actions if (refusal := self._record(found, said, now)) is not None]
        end = next((said for said in actions if said[0] in ("complete", "again")), None)
        to_self = self._send(found, actions)
        if end is not None and end[0] == "again" and taken.terminated is None:
            self._continue(found, end, to_self, told)
        elif taken.terminated is not None or end is not None:
            status, output, failure = (end[2], end[3], end[4]) if end is not None and end[0] == "complete" else (
                Status.TERMINATED, taken.terminated[1], None)
            # A recursion counts that comes while a termination without one is with its worker.
            recurse = taken.terminated is not None and any(one[2] for one in (taken.terminated, *found.terminations))
            children = found.history if recurse and status == Status.TERMINATED else ()
            found.history.append(("completed", int(status), output, failure))
            self._end(found, Status(status), output, failure)
            self._terminate_open(found, children, taken.terminated)
        else:
            found.inbox += to_self + refusals

    def _record(self, found: Instance, said: Word, now: int) -> Word | None:
        """Record an action and make what it makes; return the refusal of a child that cannot be."""
        match said:
            case "task", number, _, data:
                self.tasks[data] = Task(found.id, found.execution, number, data)
            case "timer", number, due:
                found.timers.append(Timer(due, self.number(), ("timer fired", number)))
            case "child", number, name, asked, data:
                child = asked or f"{found.id}:{number:04x}"
                found.history.append(("child", number, name, child, data))
                return self._start_child(found, number, child, data, now)
            case "signal" | "call" | "lock" | "unlock", *_:
                self._tell_entity(found, said, now)
        if said[0] in ("task", "timer", "tell", "signal", "call", "lock", "unlock"):
            found.history.append(said)
        return None

    def _tell_entity(self, found: Instance, said: Word, now: int) -> None:
        """Send a signal or a call, ask for locks or give one back."""
        match said:
            case "signal", _, target, name, data, due:
                self.entities.operate(target, name, data, due=due if due is not None and due > now else None)
            case "call", _, target, name, data, request:
                holds = any(section.granted and target in section.entities for section in found.sections)
                self.entities.operate(target, name, data, request=request, caller=(found.id, found.execution), ahead=holds)
            case "lock", _, section_id, wanted:
                found.sections.append(self.entities.request(Owner(found.id, found.execution, section_id), wanted))
            case "unlock", _, section_id, target:
                for section in [one for one in found.sections if one.id == section_id and target in one.entities]:
                    self.entities.release(Owner(found.id, found.execution, section_id), section, target)
                    section.entities = tuple(one for one in section.entities if section.granted and one != target)
                found.sections = [one for one in found.sections if one.entities]

    def _leave_sections(self, found: Instance) -> None:
        """Free or cancel everything that an execution holds or asks for."""
        for section in found.sections:
            self.entities.release(Owner(found.id, found.execution, section.id), section)
        found.sections = []

    def _start_child(self, parent: Instance | None, number: int, child: str, data: str, now: int) -> Word | None:
        """Start an orchestration, for a parent or an entity; one that runs under the id is left alone."""
        old = self.instances.get(child)
        if old is not None and not old.ended:
            return ("child failed", number, "OrchestrationAlreadyExists")
        if old is not None:
            self._make_optional(child)
        made = Instance(child, self.number(), data, now, parent=parent and (parent.id, parent.execution, number),
                        generation=0 if old is None else old.generation)
        made.start = (beginning(made),)
        self.instances[child] = made
        return None

    def _send(self, found: Instance, actions: Sequence[Word]) -> list[Word]:
        """Send events and terminations to others; return the events to itself, which come behind."""
        to_self: list[Word] = []
        for said in actions:
            match said:
                case "tell", _, target, name, data if target == found.id:
                    to_self.append(("event", name, data))
                case "tell", _, target, name, data:
                    self.deliver(target, ("event", name, data))
                case "kill", _, target, reason, recurse:
                    self.deliver(target, ("terminated", reason, recurse))
        return to_self

    def _continue(self, found: Instance, end: Word, to_self: list[Word], told: Sequence[Word]) -> None:
        """Begin the next execution: what was carried over and sent to itself comes before what waits."""
        _, _, found.input, carried = end
        self._leave_sections(found)
        found.execution, found.status, found.history, found.timers = self.number(), Status.RUNNING, [], []
        found.scheduled, found.rewinds = None, 0
        again = [one for one in told[-1:] if one[0] == "suspended"]
        found.start = (beginning(found), *carried, *to_self, *again)
        found.inbox = [one for one in found.inbox if one[0] not in RESULTS]

    def _end(self, found: Instance, status: Status, output: str | None, failure: tuple[str, str] | None) -> None:
        found.status, found.output, found.failure = status, output if failure is None else None, failure
        found.start, found.inbox, found.timers = None, [], []
        self._leave_sections(found)
        if status is Status.TERMINATED:
            self._make_optional(found.id)
        if found.parent is not None:
            self.deliver(found.parent[0], report_of(found, found.parent[2]), found.parent[1])

    def _terminate_open(self, found: Instance, history: Collection[Word], terminated: Word | None) -> None:
        """A recursive termination reaches every child that has not reported its end."""
        reported = {told[1] for told in history if told[0] in ("child done", "child failed")}
        for told in history:
            if told[0] == "child" and told[1] not in reported:
                self.deliver(told[3], ("terminated", terminated[1], True), parent=(found.id, found.execution))

    def end_pending(self, with_turn_out: Collection[str]) -> None:
        """End what was terminated by a message before its first turn; a first turn that is out comes before that."""
        again = True
        while again:
            again = False
            for found in list(self.instances.values()):
                if not found.ended and not found.history and found.terminations and found.id not in with_turn_out:
                    self._end(found, Status.TERMINATED, found.terminations[0][1], None)
                    again = True

    # Entities

    def commit_batch(self, batch: Batch, answer: BatchAnswer, now: int) -> None:
        """Follow an entity's batch whose answer was committed."""
        self.entities.commit(batch, answer, now)
        for instance_id, data in answer.starts:
            self._start_child(None, 0, instance_id, data, now)

    # Activities

    def finish_task(self, known_by: str, told: str, *rest: str) -> None:
        """Follow an activity's first result; of a task that is gone nothing follows."""
        task = self.tasks.pop(known_by, None)
        if task is not None:
            self.deliver(task.instance, (told, task.id, *rest), task.execution)

    def delete_tasks(self, instance_id: str) -> None:
        """Delete the activity tasks of an instance."""
        self.tasks = {known_by: task for known_by, task in self.tasks.items() if task.instance != instance_id}

    def _make_optional(self, instance_id: str) -> None:
        for task in self.tasks.values():
            task.optional |= task.instance == instance_id
