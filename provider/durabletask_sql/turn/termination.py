"""How the server itself ends an execution, without a worker."""

from dataclasses import replace

from durabletask_sql.model.checkpoints import HistoryAppend
from durabletask_sql.model.instances import InstanceRow
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame, frame_all, iter_events, iter_frames

# How the bytes of a message end that terminates recursively (`recurse` is its last field), and few others do.
RECURSIVE_TAIL = b"\x10\x01"


def terminated(row: InstanceRow, reason: str | None, now: int) -> tuple[InstanceRow, HistoryAppend | None]:
    """Return the row of an instance that is terminated at once, and what its history gains.

    One that has not run yet gets no history: it never began.
    """
    at = max(now, row.last_turn_at + 1)
    ended = replace(row, status=Status.TERMINATED, row_version=row.row_version + 1, updated_at=at, completed_at=at,
                    sections=())
    if not row.history_count:
        return ended, None
    gained = (events.orchestrator_started(at), events.execution_terminated(at, reason, recurse=False),
              events.execution_completed(at, events.INPUT, Status.TERMINATED, reason, None))
    history = HistoryAppend(row.execution_id, row.history_count, len(gained), frame_all(gained))
    return replace(ended, history_count=row.history_count + len(gained), last_turn_at=at), history


def failed(row: InstanceRow, failure: pb.TaskFailureDetails, start: bytes, now: int) -> tuple[InstanceRow, HistoryAppend]:
    """Return the row of an instance that is failed at once, and what its history gains.

    `start` are the framed events of its start message, for one that has not run yet: a history begins with them, and a
    rewind needs them.
    """
    at = max(now, row.last_turn_at + 1)
    gained = (frame(events.orchestrator_started(at)), *((b"",) if row.history_count else (start,)),
              frame(events.execution_completed(at, events.INPUT, Status.FAILED, None, failure)))
    count = sum(1 for part in gained for _ in iter_frames(part))
    history = HistoryAppend(row.execution_id, row.history_count, count, b"".join(gained))
    return replace(
        row, status=Status.FAILED, row_version=row.row_version + 1, updated_at=at, completed_at=at, sections=(),
        failure=failure.SerializeToString(), history_count=row.history_count + count, last_turn_at=at), history


def is_recursive(message: bytes) -> bool:
    """Tell whether a message's framed events hold a termination that takes the children along."""
    return any(event.executionTerminated.recurse for event in iter_events(message) if event.HasField("executionTerminated"))
