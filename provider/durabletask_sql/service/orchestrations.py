"""The orchestration service over the store's ports."""

from collections.abc import AsyncIterator, Callable, Iterable

from durabletask_sql.clock import Clock
from durabletask_sql.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError
from durabletask_sql.ids import new_execution_id, partition_of
from durabletask_sql.model.creation import Decision
from durabletask_sql.model.instances import InstanceKey, InstanceRow, InstanceState
from durabletask_sql.model.messages import MessageKind, NewMessage
from durabletask_sql.model.queries import InstancePage, InstanceQuery
from durabletask_sql.model.status import Status
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.instances import Creation, Instances, Sent, Termination
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame
from durabletask_sql.service.abstraction import NewInstance
from durabletask_sql.service.validation import check_instance_id, check_name, check_new_instance_id, check_payload
from durabletask_sql.service.waiters import Waiters
from durabletask_sql.settings import Limits
from durabletask_sql.turn.start import start_message

Wake = Callable[[Iterable[InstanceKey]], None]


class Orchestrations:
    """Implements `OrchestrationService` for one task hub."""

    def __init__(self, hub: TaskHub, instances: Instances, clock: Clock, limits: Limits, wake: Wake) -> None:
        """`wake` tells the owner that instances got rows which nobody holds."""
        self._hub = hub
        self._instances = instances
        self._clock = clock
        self._limits = limits
        self._wake = wake
        self.waiters = Waiters(instances.statuses)

    async def create(self, new: NewInstance) -> str:
        """Create an instance and return its id."""
        creation = self._creation(new)
        created = await self._instances.create(creation)
        instance_id = creation.row.instance_id
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
            case _:
                self._woken(Sent(created.woken, frozenset((creation.row.key,))))
        return instance_id

    def _creation(self, new: NewInstance) -> Creation:
        limits, now = self._limits, self._clock.now()
        name = check_name(new.name, "orchestrator name", limits)
        instance_id = check_new_instance_id(new.instance_id, limits) if new.instance_id else new_execution_id()
        check_payload(new.input, "input", limits)
        check_payload(new.version, "version", limits)
        for tag, value in new.tags.items():
            check_payload(tag + value, "tag", limits)
        row = InstanceRow(
            *self._key(instance_id), new_execution_id(), 0, 1, name, new.version, Status.PENDING, now, now,
            scheduled_at=new.start_at if new.start_at is not None and new.start_at > now else None,
            tags=dict(new.tags))
        event = None
        if new.event is not None:
            event_name, data = new.event
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
        self._woken(await self._instances.terminate(Termination(key, reason, message, now)))

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

        async def look() -> InstanceState | None:
            state = await self._instances.get(key, payloads=payloads)
            return state if state is not None and until(state.row.status) else None

        return await self.waiters.wait(key, look)

    async def query(self, query: InstanceQuery) -> InstancePage:
        """Return a page of instances."""
        return await self._instances.query(query)

    async def purge(self, instance_id: str, *, recursive: bool) -> int:
        """Delete an ended instance, with its ended sub-orchestrations if `recursive`; return how many went."""
        key = self._checked_key(instance_id)
        below: list[InstanceKey] = []
        if recursive:
            level = [key]
            while level:
                level = [child.key for child in await self._instances.children(level) if child.key not in below]
                below += level
        purged = await self._instances.purge([key])
        if purged:
            purged |= await self._instances.purge(below)
        self.waiters.notify(purged)
        return len(purged)

    async def history(self, instance_id: str, execution_id: str | None) -> AsyncIterator[bytes]:
        """Yield the committed history, framed, of an execution (None: the current one)."""
        key = self._checked_key(instance_id)
        state = await self._instances.get(key, payloads=False)
        if state is None:
            message = f"there is no orchestration instance with the id '{instance_id}'"
            raise NotFoundError(message)
        async for page in self._instances.history(key, execution_id or state.row.execution_id):
            yield page

    async def _send(self, instance_id: str, event: pb.HistoryEvent) -> None:
        self._woken(await self._instances.send(self._message(self._checked_key(instance_id), event)))

    def _woken(self, sent: Sent) -> None:
        if sent.woken:
            self._wake(sent.woken)
        self.waiters.notify(sent.ended)

    def _checked_key(self, instance_id: str) -> InstanceKey:
        return self._key(check_instance_id(instance_id, self._limits))

    def _key(self, instance_id: str) -> InstanceKey:
        return InstanceKey(partition_of(instance_id, self._hub.partition_count), instance_id)

    @staticmethod
    def _message(key: InstanceKey, event: pb.HistoryEvent) -> NewMessage:
        return NewMessage(key, None, MessageKind.EVENT, frame(event))
