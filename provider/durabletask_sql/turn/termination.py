"""How the server itself ends an execution, without a worker."""

from dataclasses import replace

from durabletask_sql.model.checkpoints import HistoryAppend
from durabletask_sql.model.instances import InstanceRow
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import events
from durabletask_sql.protocol.framing import frame_all


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
