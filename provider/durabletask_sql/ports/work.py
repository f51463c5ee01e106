"""The seam between dispatch and whoever runs user code: a connected gRPC worker, or the in-process runtime.

Dispatch assigns items to connected executors within their slots and takes answers by token. An executor that goes
away gives everything back at once. All methods run on the host's event loop; offers must not block.
"""

from dataclasses import dataclass
from typing import Protocol

from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import ActivityRow
from durabletask_sql.protocol import taskhub_pb2 as pb


@dataclass(frozen=True, slots=True)
class TurnItem:
    """One turn to run: the history so far (framed, as stored) and the new events (framed, OrchestratorStarted first).

    `trace` is the serialized OrchestrationTraceContext of the execution, if any. `token` identifies this dispatch.
    """

    token: str
    key: InstanceKey
    execution_id: str
    name: str
    version: str | None
    past: tuple[bytes, ...]
    new_events: bytes
    trace: bytes | None


@dataclass(frozen=True, slots=True)
class ActivityItem:
    """One activity task to run. `token` identifies this dispatch."""

    token: str
    row: ActivityRow


class Executor(Protocol):
    """Something that runs turns and activities, with room for so many at once (0 slots: it takes none)."""

    @property
    def name(self) -> str:
        """What logs call it."""
        ...

    @property
    def turn_slots(self) -> int:
        """How many turns it may hold at once."""
        ...

    @property
    def activity_slots(self) -> int:
        """How many activity tasks it may hold at once."""
        ...

    def offer_turn(self, item: TurnItem) -> None:
        """Take a turn; the answer comes back through `WorkBoard.complete_turn` or `abandon`."""
        ...

    def offer_activity(self, item: ActivityItem) -> None:
        """Take an activity task; likewise."""
        ...


class WorkBoard(Protocol):
    """Where executors connect and answer. Implemented by dispatch, one per task hub."""

    def connect(self, executor: Executor) -> None:
        """Begin to offer work to this executor."""
        ...

    def disconnect(self, executor: Executor) -> None:
        """Stop offering, and put everything that it still has back into the queue, at once."""
        ...

    async def complete_turn(self, token: str, answer: pb.OrchestratorResponse) -> None:
        """Commit the outcome of a turn; return when it is durable.

        A token that is not (or no longer) open is logged and changes nothing. An empty token is looked up by instance
        id, for SDKs that do not echo tokens. An answer that came in chunks has been put together.
        """
        ...

    async def complete_activity(self, token: str, answer: pb.ActivityResponse) -> None:
        """Commit the result of an activity task; return when it is durable. Stale tokens as above."""
        ...

    async def abandon_turn(self, token: str) -> None:
        """Take a turn back; it is offered again after a delay that grows with each abandon in a row."""
        ...

    async def abandon_activity(self, token: str) -> None:
        """Take an activity task back; likewise."""
        ...

    def refuse_turn(self, token: str, cause: str) -> None:
        """Take a turn back that cannot be sent to its executor; it is offered again, with growing delays."""
        ...

    async def refuse_activity(self, token: str, cause: str) -> None:
        """Fail an activity task that cannot be sent to its executor."""
        ...
