"""The orchestration service as its fronts see it: what clients can do, whatever they come through.

The worker's side of the reference's IOrchestrationService is `ports.work.WorkBoard`; docs/orchestration-service.md
maps each of its members.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from durabletask_sql.model.creation import CreationPolicy
from durabletask_sql.model.entities import EntityPage, EntityQuery, EntityState
from durabletask_sql.model.instances import InstanceState
from durabletask_sql.model.queries import EndedPage, EndedQuery, InstancePage, InstanceQuery, Purged, PurgeFilter
from durabletask_sql.ports.entities import Cleaned
from durabletask_sql.protocol import taskhub_pb2 as pb


@dataclass(frozen=True, slots=True)
class NewInstance:
    """An instance to create. `instance_id` "" lets the service choose one; `start_at` in microseconds UTC."""

    name: str
    instance_id: str = ""
    input: str | None = None
    version: str | None = None
    start_at: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    policy: CreationPolicy = CreationPolicy()
    trace: pb.TraceContext | None = None
    event: tuple[str, str | None] | None = None


class OrchestrationService(Protocol):
    """Operations on the instances of one task hub. Each write is atomic and durable when it returns.

    Errors are those of `durabletask_sql.errors`: InvalidArgumentError before anything was changed, UnavailableError
    when nothing was, OutcomeUnknownError when it cannot be told.
    """

    async def create(self, new: NewInstance) -> str:
        """Create an instance and return its id. Raises AlreadyExistsError as the policy says."""
        ...

    async def raise_event(self, instance_id: str, name: str, data: str | None) -> None:
        """Send an event; one for an unknown or ended instance is dropped."""
        ...

    async def terminate(self, instance_id: str, reason: str | None, *, recursive: bool) -> None:
        """End an instance, with its sub-orchestrations if `recursive`; unknown and ended ones stay as they are."""
        ...

    async def suspend(self, instance_id: str, reason: str | None) -> None:
        """Suspend an instance."""
        ...

    async def resume(self, instance_id: str, reason: str | None) -> None:
        """Resume an instance."""
        ...

    async def get(self, instance_id: str, *, payloads: bool) -> InstanceState | None:
        """Return the committed state of an instance, None when there is none."""
        ...

    async def wait_for_start(self, instance_id: str, *, payloads: bool) -> InstanceState:
        """Wait until an instance exists and is not pending any more."""
        ...

    async def wait_for_completion(self, instance_id: str, *, payloads: bool) -> InstanceState:
        """Wait until an instance has ended."""
        ...

    async def query(self, query: InstanceQuery) -> InstancePage:
        """Return a page of instances."""
        ...

    async def ended_ids(self, query: EndedQuery) -> EndedPage:
        """Return a page of the ids of instances that have ended."""
        ...

    async def restart(self, instance_id: str, *, with_new_id: bool) -> str:
        """Start an instance again from its name, input, version and tags, and return the id.

        Raises NotFoundError, and FailedPreconditionError for a live instance whose own id should be used again.
        """
        ...

    async def rewind(self, instance_id: str, reason: str | None) -> None:
        """Let a failed instance begin again where it failed, with the sub-orchestrations that failed below it.

        Raises NotFoundError, and FailedPreconditionError for one that has not failed.
        """
        ...

    async def terminate_now(self, instance_ids: Sequence[str], reason: str | None) -> list[str]:
        """End orchestrations at once, without their workers; return the ids of those that could not be ended so."""
        ...

    async def purge(self, instance_ids: Sequence[str], *, recursive: bool) -> Purged:
        """Delete those of these instances that have ended, with their ended sub-orchestrations if `recursive`."""
        ...

    async def purge_matching(self, wanted: PurgeFilter, *, recursive: bool) -> Purged:
        """Delete the ended instances that a filter names, likewise."""
        ...

    def history(self, instance_id: str, execution_id: str | None) -> AsyncIterator[bytes]:
        """Yield the committed history, framed, of an execution (None: the current one). Raises NotFoundError."""
        ...


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal to an entity. `due` in microseconds UTC; `scheduled` is the same as it was given."""

    entity_id: str
    operation: str
    input: str | None = None
    request_id: str = ""
    due: int | None = None
    scheduled: Timestamp | None = None


class EntityService(Protocol):
    """Operations on the entities of one task hub. Writes and errors are as those of `OrchestrationService`."""

    async def signal(self, signal: Signal) -> None:
        """Send a signal; return when it is durable."""
        ...

    async def signal_legacy(self, entity_id: str, name: str, data: str | None) -> None:
        """Send a signal in the older form: an event whose name and data are those of a request (S-326)."""
        ...

    async def get(self, entity_id: str) -> EntityState | None:
        """Return the committed state of an entity; None when it has none."""
        ...

    async def query(self, query: EntityQuery) -> EntityPage:
        """Return a page of entities."""
        ...

    async def purge(self, entity_id: str) -> int:
        """Delete an entity's state; return how many had one."""
        ...

    async def release_orphans(self, after: str | None) -> Cleaned:
        """Free locks whose section's execution does not live any more."""
        ...
