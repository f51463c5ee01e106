"""One instance, seen in one snapshot: its row, its history, its sections, and whether it waits for what can happen."""

from collections import Counter
from dataclasses import dataclass, field

from durabletask_sql.doctor.findings import Finding, Level
from durabletask_sql.doctor.histories import Read, read_history
from durabletask_sql.ids import partition_of
from durabletask_sql.model.entities import LockOwner
from durabletask_sql.model.messages import MessageKind
from durabletask_sql.ports.inspection import Examined, Snapshot
from durabletask_sql.protocol.needs import CALL, CHILD, TASK, Need

_NAMED = 5  # of what is lost, at most
_REPORT = "this is a bug or damage: keep the database, and report it with the instance's history"
_STUCK = ("nothing will wake it: rewind it if it has failed work, or terminate and purge it; keep the database and report "
          "it, this should not be possible")


@dataclass(slots=True)
class Verdict:
    """What is wrong with an instance. `entities`: it can be told only together with these (look again with them)."""

    findings: list[Finding] = field(default_factory=list)
    entities: frozenset[str] = frozenset()


def check_instance(one: Examined, around: Snapshot, partition_count: int, known: frozenset[str] = frozenset()) -> Verdict:
    """Check one instance. `known` are the entities that the snapshot was asked about."""
    row, verdict = one.row, Verdict()
    read = read_history(row, one.history, one.payloads)
    problems = [*read.problems]
    if row.partition != partition_of(row.instance_id, partition_count):
        problems.append(f"it stands in partition {row.partition}, where nobody looks for it")
    if row.status.is_terminal != (row.completed_at is not None):
        problems.append(f"its status is {row.status.name}, and its completion time is {row.completed_at}")
    if row.status.is_terminal and row.sections:
        problems.append(f"it has ended with {len(row.sections)} critical sections open")
    verdict.findings += [Finding("history", row.instance_id, problem, _REPORT) for problem in problems]
    if not row.status.is_terminal and not read.problems:
        _check_waits(one, read, around, known, verdict)
    return verdict


def _check_waits(one: Examined, read: Read, around: Snapshot, known: frozenset[str], verdict: Verdict) -> None:
    row = one.row
    missing = _missing(one, read)
    calls = {need: read.called[need] for need in missing if need.kind == CALL}
    entities = {*calls.values(), *(entity for section in row.sections for entity in section.entities)} - {""}
    if entities - known:
        verdict.entities = frozenset(entities)
        return
    missing = [need for need in missing
               if need.kind != CALL or (calls[need], row.execution_id) not in around.sent]
    lost = [f"{need.kind} {need.id}" for need in missing] + _lost_sections(one, around)
    if not row.history_count and not _has_start(one):
        lost.append("its start message")
    if not lost:
        if _waits_for_events(one, read):
            verdict.findings.append(Finding(
                "waits", row.instance_id, "it waits for events only", "raise one, or terminate it if none will come",
                Level.NOTE))
        return
    what = f"it waits for what cannot come: {', '.join(lost[:_NAMED])}{', ...' if len(lost) > _NAMED else ''}"
    if around.set_aside & {row.instance_id, *entities}:
        verdict.findings.append(Finding(
            "waits", row.instance_id, f"{what}; something of it was set aside",
            "look at what was set aside, mend the cause and put it back", Level.NOTE))
    else:
        verdict.findings.append(Finding("stuck", row.instance_id, what, _STUCK))


def _missing(one: Examined, read: Read) -> list[Need]:
    """Return what is open and has neither a row that works on it nor an answer that waits."""
    there = Counter(Need(TASK, task_id) for task_id in one.tasks)
    there.update(Need(CHILD, task_id) for task_id in one.children)
    there.update(row.answers for row in (*one.messages, *one.timers) if row.answers is not None)
    return [need for need, count in (read.open - there).items() if need not in read.fired and count > 0]


def _lost_sections(one: Examined, around: Snapshot) -> list[str]:
    """A section that was granted holds its locks; the request of one that was not stands in a queue on its way."""
    row, lost = one.row, list[str]()
    for section in row.sections:
        owner = LockOwner(row.instance_id, row.execution_id, section.section_id)
        if section.granted:
            lost += [f"the lock of {entity}" for entity in section.entities if around.locks.get(entity) != owner]
        elif not one.messages and not any((entity, row.execution_id) in around.sent for entity in section.entities):
            lost.append(f"the locks of its section {section.section_id}")
    return lost


def _has_start(one: Examined) -> bool:
    return any(row.kind == MessageKind.START for row in (*one.messages, *one.timers))


def _waits_for_events(one: Examined, read: Read) -> bool:
    open_work = any(need not in read.fired for need in read.open)
    return not (open_work or one.messages or one.timers or one.has_events or any(
        not section.granted for section in one.row.sections))
