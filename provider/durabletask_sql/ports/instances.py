"""What clients do to instances and ask about them. Each write is one transaction of its own, never the turns'.

An orchestration that is simply started goes to its owner first (`model.checkpoints.OrchestrationStart`).

Rows written here are held by nobody: the caller wakes the owner with the instance ids afterwards. Writes raise
UnavailableError when nothing was changed, OutcomeUnknownError when that cannot be told even afterwards.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from durabletask_sql.model.creation import CreationPolicy, Decision
from durabletask_sql.model.instances import InstanceKey, InstanceRow, InstanceState
from durabletask_sql.model.messages import NewMessage
from durabletask_sql.model.queries import EndedPage, EndedQuery, InstancePage, InstanceQuery
from durabletask_sql.model.rewinds import Rewind
from durabletask_sql.model.status import Status


@dataclass(frozen=True, slots=True)
class Creation:
    """A new instance: its row (generation and row version are settled by the store), input and start message.

    The start goes into `timers` when `row.scheduled_at` is set, else into the control queue. `event` follows it in
    the same transaction.
    """

    row: InstanceRow
    input: str | None
    start: NewMessage
    policy: CreationPolicy
    event: NewMessage | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """What a creation did: for REFUSE, KEEP and INVALID nothing, and `existing` is the status in the way.

    `woken` are instances that got rows (the new one, the parent of a live one that was replaced).
    """

    decision: Decision
    existing: Status | None = None
    woken: frozenset[InstanceKey] = frozenset()


@dataclass(frozen=True, slots=True)
class Termination:
    """A terminate: ends an instance without committed history at once, else queues `message`.

    `message` is the ExecutionTerminated message; `output` its reason.
    """

    key: InstanceKey
    output: str | None
    message: NewMessage
    now: int


@dataclass(frozen=True, slots=True)
class Sent:
    """What a write did: the instances that got rows, and those that ended or began anew by it."""

    woken: frozenset[InstanceKey] = frozenset()
    ended: frozenset[InstanceKey] = frozenset()


class Instances(Protocol):
    """Clients' writes and reads."""

    async def create(self, creation: Creation) -> Created:
        """Dedupe check, row, start message and event in one transaction (S-413)."""
        ...

    async def send(self, message: NewMessage) -> Sent:
        """Queue a message for an instance that exists and has not ended; otherwise change nothing (S-286)."""
        ...

    async def terminate(self, termination: Termination) -> Sent:
        """End a pending instance, or queue the termination; unknown and ended ones stay as they are (S-416)."""
        ...

    async def terminate_now(self, keys: Sequence[InstanceKey], reason: str | None, now: int) -> Sent:
        """End instances at once, in one transaction; ended and unknown ones stay as they are.

        What a worker has out of them is lost when it comes back: their row versions rise.
        """
        ...

    async def rewind(self, plan: Rewind) -> bool:
        """Carry out a rewind in one transaction; False, with nothing changed, when it does not fit any more."""
        ...

    async def purge(self, executions: Mapping[InstanceKey, str | None]) -> frozenset[InstanceKey]:
        """Delete everything about those that have ended, in one transaction; return which.

        An execution id restricts it to that execution; None takes whichever there is.
        """
        ...

    async def get(self, key: InstanceKey, *, payloads: bool) -> InstanceState | None:
        """Return the committed state of one instance."""
        ...

    async def rows(self, keys: Sequence[InstanceKey]) -> dict[InstanceKey, InstanceRow]:
        """Return the committed rows of those that exist, in one statement."""
        ...

    async def statuses(self, keys: Sequence[InstanceKey]) -> dict[InstanceKey, Status]:
        """Return the committed statuses of those that exist, in one statement."""
        ...

    async def query(self, query: InstanceQuery) -> InstancePage:
        """Return one page by keyset: inserts between pages neither repeat nor hide an instance."""
        ...

    async def ended_ids(self, query: EndedQuery) -> EndedPage:
        """Return one page of the ids of ended instances by keyset, likewise."""
        ...

    async def children(self, keys: Sequence[InstanceKey]) -> list[InstanceRow]:
        """Return the rows of the sub-orchestrations that these instances started (any execution)."""
        ...

    def history(self, key: InstanceKey, execution_id: str) -> AsyncIterator[bytes]:
        """Yield the framed events of one execution, a page of history rows at a time."""
        ...
