"""What an activity's answer becomes: the message to its orchestration. And the tokens of activity tasks. Pure."""

import re

from durabletask_sql.model.messages import ActivityRow, MessageKind, NewMessage
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame

_TOKEN = re.compile(r"activity:(?P<hub>[0-9]{1,19}):(?P<partition>[0-9]{1,19}):(?P<seq>[0-9]{1,19}):"
                    r"(?P<claim>[0-9a-f]{1,16}):[0-9]+")
_LARGEST = 2**63 - 1  # what the database's numbers hold


def activity_outcome(row: ActivityRow, answer: pb.ActivityResponse, now: int) -> NewMessage:
    """Return the message that carries a result: failed by the presence of failure details, whatever their text."""
    if answer.HasField("failureDetails"):
        event = events.task_failed(now, row.task_id, answer.failureDetails)
    else:
        event = events.task_completed(now, row.task_id, answer.result.value if answer.HasField("result") else None)
    return NewMessage(row.key, row.execution_id, MessageKind.EVENT, frame(event))


def parse_activity_token(token: str, hub_id: int) -> tuple[int, int, int] | None:
    """Return (partition, sequence, claim token) of a token of this hub, or None for anything else."""
    found = _TOKEN.fullmatch(token)
    if found is None or int(found["hub"]) != hub_id:
        return None
    numbers = int(found["partition"]), int(found["seq"]), int(found["claim"], 16)
    return numbers if max(numbers) <= _LARGEST else None
