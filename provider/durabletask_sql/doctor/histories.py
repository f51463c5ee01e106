"""One instance's history: dense, counted, with one start and one end, and what it still waits for."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from durabletask_sql.errors import MalformedFrameError
from durabletask_sql.model.instances import InstanceRow
from durabletask_sql.ports.inspection import HistoryPart
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import iter_events
from durabletask_sql.protocol.needs import Need, answered, asked
from durabletask_sql.protocol.texts import put_back, read_refs
from durabletask_sql.turn.notices import FIRE_AND_FORGET


@dataclass(slots=True)
class Read:
    """What a history says: its problems, what has no answer yet, and which entity each open call went to.

    Nobody waits for the answers of what was `fired` and forgotten.
    """

    problems: list[str] = field(default_factory=list)
    open: Counter[Need] = field(default_factory=Counter)
    called: dict[Need, str] = field(default_factory=dict)
    fired: set[Need] = field(default_factory=set)


def read_history(row: InstanceRow, parts: Sequence[HistoryPart], payloads: Mapping[int, int]) -> Read:
    """Check an execution's history, row by row and as a whole. `payloads` are the sizes of its texts by id."""
    read, at, kinds = Read(), 0, list[str]()
    for part in parts:
        if part.first_sequence != at:
            what = "overlap" if part.first_sequence < at else "have a gap"
            read.problems.append(f"its history's rows {what}: one begins at {part.first_sequence}, expected {at}")
        at = part.first_sequence + part.event_count
        try:
            events = list(_events(part, payloads))
        except (MalformedFrameError, DecodeError) as error:
            read.problems.append(f"the row of its history at {part.first_sequence} cannot be read: {error}")
            continue
        if len(events) != part.event_count:
            read.problems.append(f"the row of its history at {part.first_sequence} says that it has {part.event_count} "
                                 f"events, and has {len(events)}")
        kinds += [event.WhichOneof("eventType") or "" for event in events]
        _follow(read, events)
    if at != row.history_count:
        read.problems.append(f"its history ends at {at} events, its row says {row.history_count}")
    if kinds and not read.problems:
        read.problems += _check_ends(kinds, ended=row.status.is_terminal)
    return read


def _events(part: HistoryPart, payloads: Mapping[int, int]) -> Iterable[pb.HistoryEvent]:
    """Of the texts that were taken out only their sizes are known, and that is enough to see that they are there."""
    if part.refs is None:
        return iter_events(part.events)
    blank = {ref.payload_id: bytes(payloads[ref.payload_id])
             for ref in read_refs(part.refs) if ref.payload_id in payloads}
    return iter_events(put_back(part.events, part.refs, blank))


def _follow(read: Read, events: Iterable[pb.HistoryEvent]) -> None:
    """Keep account of what is open; retries ask for an id again, so it is counted."""
    for event in events:
        need = asked(event)
        if need is not None:
            read.open[need] += 1
            if FIRE_AND_FORGET in event.subOrchestrationInstanceCreated.tags:
                read.fired.add(need)
            if event.HasField("entityOperationCalled"):
                read.called[need] = event.entityOperationCalled.targetInstanceId.value
        answer = answered(event)
        if answer is not None:
            if not read.open[answer]:
                read.problems.append(f"its history has an answer to {answer.kind} {answer.id}, which nothing asked for "
                                     "or which was answered before")
            else:
                read.open[answer] -= 1
    read.open += Counter()  # drops what has come to nothing


def _check_ends(kinds: Sequence[str], *, ended: bool) -> list[str]:
    """Return what is wrong with the first and the last event of an execution."""
    problems = []
    if kinds[:2] != ["orchestratorStarted", "executionStarted"] or kinds.count("executionStarted") != 1:
        problems.append(f"its history does not begin with one start: {', '.join(kinds[:3])}")
    ends = kinds.count("executionCompleted")
    if ends != int(ended) or (ended and kinds[-1] != "executionCompleted"):
        said = "has ended" if ended else "has not ended"
        problems.append(f"it {said}, and its history has {ends} ends and closes with {kinds[-1]}")
    return problems
