"""What an activity's answer becomes: the message to its orchestration. And the tokens of activity tasks. Pure."""

from durabletask_sql.model.messages import ActivityRow, MessageKind, NewMessage
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame

_TOKEN_PARTS = 6


def activity_outcome(row: ActivityRow, answer: pb.ActivityResponse, now: int) -> NewMessage:
    """Return the message that carries a result: failed by the presence of failure details, whatever their text."""
    if answer.HasField("failureDetails"):
        event = events.task_failed(now, row.task_id, answer.failureDetails)
    else:
        event = events.task_completed(now, row.task_id, answer.result.value if answer.HasField("result") else None)
    return NewMessage(row.key, row.execution_id, MessageKind.EVENT, frame(event))


def parse_activity_token(token: str, hub_id: int) -> tuple[int, int, int] | None:
    """Return (partition, sequence, claim token) of a token of this hub, or None for anything else."""
    parts = token.split(":")
    if len(parts) != _TOKEN_PARTS or parts[0] != "activity" or parts[1] != str(hub_id):
        return None
    try:
        return int(parts[2]), int(parts[3]), int(parts[4], 16)
    except ValueError:
        return None
