"""The orchestration service over the store's ports."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Protocol

from durabletask_sql.clock import Clock
from durabletask_sql.errors import AlreadyExistsError, FailedPreconditionError, InvalidArgumentError, NotFoundError
from durabletask_sql.ids import is_entity, new_execution_id, partition_of
from durabletask_sql.model.creation import Decision
from durabletask_sql.model.instances import InstanceKey, InstanceRow, InstanceState
from durabletask_sql.model.messages import MessageKind, NewMessage
from durabletask_sql.model.queries import EndedPage, EndedQuery, InstancePage, InstanceQuery, Purged, PurgeFilter
from durabletask_sql.model.status import Status
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.instances import Created, Creation, Instances, Sent, Termination
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame
from durabletask_sql.service.abstraction import NewInstance
from durabletask_sql.service.purges import Purges
from durabletask_sql.service.rewinds import Rewinds
from durabletask_sql.service.validation import (
    check_batch,
    check_instance_id,
    check_name,
    check_new_instance_id,
    check_part,
    check_payload,
    check_version,
)
from durabletask_sql.service.waiters import Waiters
from durabletask_sql.settings import Limits
from durabletask_sql.turn.start import start_message

_BATCH = 100


class OwnerPort(Protocol):
    """What the owner of this hub's instances, if it is in this process, is told of what clients wrote."""

    async def start_instance(self, creation: Creation) -> bool:
        """Create an instance whose id is free; False, with nothing changed, where the owner is not here, or cannot."""
        ...

    def known(self, key: InstanceKey) -> InstanceRow | None:
        """Return the row of an instance that the owner has in memory, None if it does not."""
        ...

    def wake(self, keys: Iterable[InstanceKey]) -> None:
        """Somebody wrote rows for these instances that nobody holds: claim them now."""
        ...

    def forget(self, keys: Iterable[InstanceKey]) -> None:
        """These instances were ended or replaced: what is known of them, and out at workers, counts no more."""
        ...


class Orchestrations:
    """Implements `OrchestrationService` for one task hub."""

    def __init__(self, hub: TaskHub, instances: Instances, clock: Clock, limits: Limits, owner: OwnerPort) -> None:
        """Take the parts."""
        self._hub = hub
        self._instances = instances
        self._clock = clock
        self._limits = limits
        self._owner = owner
        self._purges = Purges(instances, clock)
        self._rewinds = Rewinds(hub, instances, clock)
        self._contested: set[InstanceKey] = set()
        self.waiters = Waiters(instances.statuses)

    async def create(self, new: NewInstance) -> str:
        """Create an instance and return its id."""
        creation = self._creation(new)
        instance_id = creation.row.instance_id
        if await self._start_at_owner(creation):
            return instance_id
        created = await self._create(creation)
        existing = created.existing.name if created.existing is not None else "unknown"
        match created.decision:
            case Decision.REFUSE:
                message = (f"an orchestration instance with the id '{instance_id}' already exists and is {existing}: use "
                           "another id, or a reuse policy that allows this status to be replaced")
                raise AlreadyExistsError(message)
            case Decision.INVALID:
                message = ("Invalid reusable statuses: cannot exclude 'Terminated' while also allowing reuse of running "
                           f"instances ('{instance_id}' is {existing})")
                raise InvalidArgumentError(message)
            case Decision.CREATE | Decision.REPLACE:
                self._follow(Sent(created.woken, frozenset((creation.row.key,))))
            case Decision.KEEP:
                pass
        return instance_id

    async def _start_at_owner(self, creation: Creation) -> bool:
        """Have the owner start it, unless somebody is about to find out what is in the way of the same id."""
        return creation.row.key not in self._contested and await self._owner.start_instance(creation)

    async def _create(self, creation: Creation) -> Created:
        key = creation.row.key
        self._contested.add(key)
        try:
            return await self._instances.create(creation)
        finally:
            self._contested.discard(key)

    def _creation(self, new: NewInstance) -> Creation:
        limits, now = self._limits, self._clock.now()
        name = check_name(new.name, "orchestrator name", limits)
        instance_id = check_new_instance_id(new.instance_id, limits) if new.instance_id else new_execution_id()
        check_payload(new.input, "input", limits)
        check_version(new.version, limits)
        check_payload("".join(tag + value for tag, value in new.tags.items()), "set of tags", limits)
        row = InstanceRow(
            *self._key(instance_id), new_execution_id(), 0, 1, name, new.version, Status.PENDING, now, now,
            scheduled_at=new.start_at if new.start_at is not None and new.start_at > now else None,
            tags=dict(new.tags))
        event = None
        if new.event is not None:
            event_name, data = new.event
            check_payload(data, "event", limits)
            event = self._message(row.key, events.event_raised(now, check_name(event_name, "event name", limits), data))
        return Creation(row, new.input, start_message(row, new.input, new.trace, now), new.policy, event)

    async def raise_event(self, instance_id: str, name: str, data: str | None) -> None:
        """Send an event; one for an unknown or ended instance is dropped."""
        check_name(name, "event name", self._limits)
        check_payload(data, "event", self._limits)
        await self._send(instance_id, events.event_raised(self._clock.now(), name, data))

    async def terminate(self, instance_id: str, reason: str | None, *, recursive: bool) -> None:
        """End an instance, with its sub-orchestrations if `recursive`."""
        check_payload(reason, "termination reason", self._limits)
        key, now = self._checked_key(instance_id), self._clock.now()
        message = self._message(key, events.execution_terminated(now, reason, recurse=recursive))
        self._follow(await self._instances.terminate(Termination(key, reason, message, now)))

    async def suspend(self, instance_id: str, reason: str | None) -> None:
        """Suspend an instance."""
        check_payload(reason, "reason", self._limits)
        await self._send(instance_id, events.execution_suspended(self._clock.now(), reason))

    async def resume(self, instance_id: str, reason: str | None) -> None:
        """Resume an instance."""
        check_payload(reason, "reason", self._limits)
        await self._send(instance_id, events.execution_resumed(self._clock.now(), reason))

    async def get(self, instance_id: str, *, payloads: bool) -> InstanceState | None:
        """Return the committed state of an instance, None when there is none."""
        return await self._instances.get(self._checked_key(instance_id), payloads=payloads)

    async def wait_for_start(self, instance_id: str, *, payloads: bool) -> InstanceState:
        """Wait until an instance exists and is not pending any more."""
        return await self._wait(instance_id, payloads=payloads, until=lambda status: status is not Status.PENDING)

    async def wait_for_completion(self, instance_id: str, *, payloads: bool) -> InstanceState:
        """Wait until an instance has ended."""
        return await self._wait(instance_id, payloads=payloads, until=lambda status: status.is_terminal)

    async def _wait(self, instance_id: str, *, payloads: bool, until: Callable[[Status], bool]) -> InstanceState:
        key = self._checked_key(instance_id)
        known = self._owner.known(key)  # saves a read, and says no more: it may be what is being committed

        async def look(told: InstanceRow | None) -> InstanceState | None:
            if told is not None and not until(told.status):
                return None
            if told is not None and told is not known and not payloads:
                return InstanceState(told)
            state = await self._instances.get(key, payloads=payloads)
            return state if state is not None and until(state.row.status) else None

        return await self.waiters.wait(key, look, known)

    async def query(self, query: InstanceQuery) -> InstancePage:
        """Return a page of instances."""
        check_part(query.prefix, "instance id prefix")
        return await self._instances.query(query)

    async def ended_ids(self, query: EndedQuery) -> EndedPage:
        """Return a page of the ids of instances that have ended."""
        return await self._instances.ended_ids(query)

    async def restart(self, instance_id: str, *, with_new_id: bool) -> str:
        """Start an instance again from its name, input, version and tags, and return the id."""
        state = await self._known(instance_id, payloads=True)
        again = NewInstance(state.row.name, "" if with_new_id else instance_id, state.input, state.row.version,
                            tags=state.row.tags)
        try:
            return await self.create(again)
        except AlreadyExistsError as error:
            message = (f"the instance '{instance_id}' has not ended and cannot be restarted under its id: terminate it "
                       "first, or ask for a new id")
            raise FailedPreconditionError(message) from error

    async def rewind(self, instance_id: str, reason: str | None) -> None:
        """Let a failed instance begin again where it failed, with the sub-orchestrations that failed below it."""
        check_payload(reason, "reason", self._limits)
        self._follow(await self._rewinds.rewind(self._checked_key(instance_id), reason))

    async def terminate_now(self, instance_ids: Sequence[str], reason: str | None) -> list[str]:
        """End orchestrations at once, without their workers; return the ids of those that could not be ended so."""
        check_payload(reason, "reason", self._limits)
        wanted, now = check_batch(instance_ids, self._limits), self._clock.now()
        ended: set[InstanceKey] = set()
        keys = sorted(self._key(instance_id) for instance_id in wanted if not is_entity(instance_id))
        for start in range(0, len(keys), _BATCH):
            sent = await self._instances.terminate_now(keys[start:start + _BATCH], reason, now)
            self._follow(sent)
            ended |= sent.ended
        return [instance_id for instance_id in wanted if self._key(instance_id) not in ended]

    async def purge(self, instance_ids: Sequence[str], *, recursive: bool) -> Purged:
        """Delete those of these instances that have ended, with their ended sub-orchestrations if `recursive`."""
        keys = [self._key(instance_id) for instance_id in check_batch(instance_ids, self._limits)]
        return await self._purges.purge(keys, recursive=recursive)

    async def purge_matching(self, wanted: PurgeFilter, *, recursive: bool) -> Purged:
        """Delete the ended instances that a filter names, likewise."""
        return await self._purges.purge_matching(wanted, recursive=recursive)

    async def history(self, instance_id: str, execution_id: str | None) -> AsyncIterator[bytes]:
        """Yield the committed history, framed, of an execution (None: the current one)."""
        check_part(execution_id or "", "execution id")
        state = await self._known(instance_id, payloads=False)
        async for page in self._instances.history(state.row.key, execution_id or state.row.execution_id):
            yield page

    async def _known(self, instance_id: str, *, payloads: bool) -> InstanceState:
        """Return the state of an instance. Raises NotFoundError."""
        state = await self._instances.get(self._checked_key(instance_id), payloads=payloads)
        if state is None:
            message = f"there is no orchestration instance with the id '{instance_id}'"
            raise NotFoundError(message)
        return state

    async def _send(self, instance_id: str, event: pb.HistoryEvent) -> None:
        self._follow(await self._instances.send(self._message(self._checked_key(instance_id), event)))

    def _follow(self, sent: Sent) -> None:
        """Tell the owner and the waiters what a write did."""
        if sent.ended:
            self._owner.forget(sent.ended)
        if sent.woken:
            self._owner.wake(sent.woken)
        self.waiters.notify(sent.ended)

    def _checked_key(self, instance_id: str) -> InstanceKey:
        return self._key(check_instance_id(instance_id, self._limits))

    def _key(self, instance_id: str) -> InstanceKey:
        return InstanceKey(partition_of(instance_id, self._hub.partition_count), instance_id)

    @staticmethod
    def _message(key: InstanceKey, event: pb.HistoryEvent) -> NewMessage:
        return NewMessage(key, None, MessageKind.EVENT, frame(event))
