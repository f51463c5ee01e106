"""The seam between dispatch and whoever runs user code: a connected gRPC worker, or the in-process runtime.

Dispatch assigns items to connected executors within their slots and takes answers by token. An executor that goes
away gives everything back at once. All methods run on the host's event loop; offers must not block.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from durabletask_sql.model.filters import NameFilter, WorkFilters
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


@dataclass(frozen=True, slots=True)
class EntityItem:
    """One batch of operations of an entity to run: its state (None: it has none), and the operations, framed.

    `token` identifies this dispatch. An entity has no executions: `execution_id` is this batch's.
    """

    token: str
    key: InstanceKey
    execution_id: str
    state: str | None
    operations: bytes


@dataclass(frozen=True, slots=True)
class Needs:
    """What one item asks of its executor beyond taking its name.

    `message_bytes` is about the size of its work item (never less), `streamed_bytes` the same when the executor
    fetches the history by itself, `echo` says that the answer must carry the token.
    """

    message_bytes: int = 0
    streamed_bytes: int = 0
    echo: bool = False


@dataclass(frozen=True, slots=True)
class Profile:
    """What an executor takes. Executors of one profile take the same work.

    `message_bytes` is the largest work item that it can read (None: any), `streams_history` says that it fetches a
    long history by itself. One that does not echo tokens answers with the item's key alone, so at most one dispatch of
    a key may be open on such executors.
    """

    filters: WorkFilters = WorkFilters()
    message_bytes: int | None = None
    streams_history: bool = False
    echoes_tokens: bool = True

    def meets(self, needs: Needs) -> bool:
        """Tell whether an item with these needs can be given to such an executor."""
        if needs.echo and not self.echoes_tokens:
            return False
        size = needs.streamed_bytes if self.streams_history else needs.message_bytes
        return self.message_bytes is None or size <= self.message_bytes


class WorkKind(Enum):
    """The kinds of work that filters tell apart."""

    ORCHESTRATION = "orchestration"
    ACTIVITY = "activity"
    ENTITY = "entity"

    def filter_of(self, filters: WorkFilters) -> NameFilter | None:
        """Return the filter for this kind; None takes everything."""
        match self:
            case WorkKind.ORCHESTRATION:
                return filters.orchestrations
            case WorkKind.ACTIVITY:
                return filters.activities
            case WorkKind.ENTITY:
                return filters.entities


class Executor(Protocol):
    """Something that runs turns, activities and entities, with room for so many at once (0 slots: it takes none).

    Neither its slots nor its profile change while it is connected.
    """

    @property
    def name(self) -> str:
        """What logs call it."""
        ...

    @property
    def profile(self) -> Profile:
        """What it takes."""
        ...

    @property
    def turn_slots(self) -> int:
        """How many turns it may hold at once."""
        ...

    @property
    def activity_slots(self) -> int:
        """How many activity tasks it may hold at once."""
        ...

    @property
    def entity_slots(self) -> int:
        """How many batches of entities it may hold at once."""
        ...

    def offer_turn(self, item: TurnItem) -> None:
        """Take a turn; the answer comes back through `WorkBoard.complete_turn` or `abandon`."""
        ...

    def offer_activity(self, item: ActivityItem) -> None:
        """Take an activity task; likewise."""
        ...

    def offer_entity(self, item: EntityItem) -> None:
        """Take a batch of an entity; likewise."""
        ...


class WorkBoard(Protocol):
    """Where executors connect and answer. Implemented by dispatch, one per task hub."""

    def connect(self, executor: Executor) -> None:
        """Begin to offer work to this executor."""
        ...

    def disconnect(self, executor: Executor, *, lost: bool = True) -> None:
        """Stop offering, and put everything that it still has back into the queue, at once.

        `lost`: it was not asked to go, so that what it had may be the cause.
        """
        ...

    async def complete_turn(self, answer: pb.OrchestratorResponse) -> None:
        """Commit the outcome of a turn; return when it is durable.

        A token that is not (or no longer) open is logged and changes nothing. An empty token is looked up by instance
        id, for SDKs that do not echo tokens. A part of an answer is kept until its last part comes, and goes with
        the turn when that is taken back.
        """
        ...

    async def complete_activity(self, answer: pb.ActivityResponse) -> None:
        """Commit the result of an activity task; return when it is durable. Stale tokens as above."""
        ...

    async def complete_entity(self, answer: pb.EntityBatchResult) -> None:
        """Commit the outcome of an entity's batch; return when it is durable. Stale tokens as above."""
        ...

    async def abandon_turn(self, token: str) -> None:
        """Take a turn back; it is offered again after a delay that grows with each abandon in a row."""
        ...

    async def abandon_activity(self, token: str) -> None:
        """Take an activity task back; likewise."""
        ...

    async def abandon_entity(self, token: str) -> None:
        """Take a batch back; likewise."""
        ...

    def past_of_turn(self, instance_id: str, execution_id: str | None) -> tuple[bytes, ...] | None:
        """Return the history (framed) that the turn which is out was made from; None when none is out.

        Executors that stream histories ask for it. `execution_id` None means whatever execution runs.
        """
        ...
