"""What clients can do to entities, over the store's port."""

from collections.abc import Iterable
from typing import Protocol

from durabletask_sql.clock import Clock
from durabletask_sql.errors import InvalidArgumentError, MalformedFrameError
from durabletask_sql.ids import guid_of, is_guid, new_execution_id, partition_of
from durabletask_sql.model.entities import EntityPage, EntityQuery, EntityState
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import MessageKind, NewMessage, NewTimer
from durabletask_sql.ports.entities import Cleaned, EntityStore
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame
from durabletask_sql.service.abstraction import Signal
from durabletask_sql.service.validation import check_entity_id, check_name, check_part, check_payload
from durabletask_sql.settings import Limits
from durabletask_sql.turn.entity import legacy

_ORPHANS_A_CALL = 500


class SignalOwner(Protocol):
    """What the owner of this hub's entities, if it is in this process, is told of what clients wrote."""

    def wake(self, keys: Iterable[InstanceKey]) -> None:
        """Somebody wrote rows for these entities that nobody holds: claim them now."""
        ...

    def wake_timers(self, key: InstanceKey) -> None:
        """Somebody wrote delayed rows for this entity: take those that come due soon into the window."""
        ...


class Entities:
    """Implements `EntityService` for one task hub."""

    def __init__(self, hub: TaskHub, store: EntityStore, clock: Clock, limits: Limits, owner: SignalOwner) -> None:
        """Take the parts."""
        self._hub = hub
        self._store = store
        self._clock = clock
        self._limits = limits
        self._owner = owner

    async def signal(self, signal: Signal) -> None:
        """Send a signal; return when it is durable."""
        key, limits = self._checked_key(signal.entity_id), self._limits
        check_name(signal.operation, "operation name", limits)
        check_payload(signal.input, "input", limits)
        if signal.request_id and not is_guid(signal.request_id):
            message = f"the request id {signal.request_id!r} is not a GUID: send one, or none"
            raise InvalidArgumentError(message)
        event = events.entity_signaled(self._clock.now(), events.INPUT, pb.EntityOperationSignaledEvent(
            requestId=signal.request_id or guid_of(new_execution_id()), operation=signal.operation,
            input=events.text(signal.input), scheduledTime=signal.scheduled,
            targetInstanceId=events.text(signal.entity_id)))
        await self._send(key, event, signal.due)

    async def signal_legacy(self, entity_id: str, name: str, data: str | None) -> None:
        """Send a signal in the older form: an event whose name and data are those of a request (S-326)."""
        key = self._checked_key(entity_id)
        check_payload(data, "event", self._limits)
        try:
            due, request = legacy.due_time(name), legacy.parse_request(name, data or "")
        except MalformedFrameError as error:
            message = f"the event {name!r} is no request to entity '{entity_id}', {error}: use SignalEntity"
            raise InvalidArgumentError(message) from error
        if not request.signal or request.lock_set or not is_guid(request.id):
            message = (f"the event {name!r} to entity '{entity_id}' is not a signal with a GUID as its id: only "
                       "orchestrations can call or lock entities")
            raise InvalidArgumentError(message)
        check_name(request.operation, "operation name", self._limits)
        await self._send(key, events.event_raised(self._clock.now(), name, data), due)

    async def _send(self, key: InstanceKey, event: pb.HistoryEvent, due: int | None) -> None:
        """Queue a signal. One that is not due yet does not make the entity exist."""
        if due is not None and due > self._clock.now():
            await self._store.signal(NewTimer(key, "", MessageKind.EVENT, due, frame(event)))
            self._owner.wake_timers(key)
        else:
            await self._store.signal(NewMessage(key, None, MessageKind.EVENT, frame(event)))
            self._owner.wake((key,))

    async def get(self, entity_id: str) -> EntityState | None:
        """Return the committed state of an entity; None when it has none."""
        found = await self._store.get(self._checked_key(entity_id))
        return found if found is not None and found.row.state is not None else None

    async def query(self, query: EntityQuery) -> EntityPage:
        """Return a page of entities."""
        check_part(query.prefix, "entity id prefix")
        check_part(query.after or "", "continuation token")
        return await self._store.query(query)

    async def purge(self, entity_id: str) -> int:
        """Delete an entity's state; return how many had one."""
        key = self._checked_key(entity_id)
        purged = await self._store.purge(key)
        self._owner.wake((key,))
        return int(purged)

    async def release_orphans(self, after: str | None) -> Cleaned:
        """Free locks whose section's execution does not live any more: a safety net, each end frees its own (S-344)."""
        check_part(after or "", "continuation token")
        cleaned = await self._store.release_orphans(self._clock.now(), after, _ORPHANS_A_CALL)
        self._owner.wake(cleaned.released)
        return cleaned

    def _checked_key(self, entity_id: str) -> InstanceKey:
        check_entity_id(entity_id, self._limits)
        return InstanceKey(partition_of(entity_id, self._hub.partition_count), entity_id)
