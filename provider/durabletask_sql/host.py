"""The composition root: the one place that knows every part of a host."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from durabletask_sql.clock import MovableClock, SystemClock
from durabletask_sql.dispatch.dispatcher import Dispatcher, DispatcherSettings, Listeners
from durabletask_sql.errors import LoopEndedError
from durabletask_sql.ids import new_host_id
from durabletask_sql.model.checkpoints import TurnCheckpoint
from durabletask_sql.partitions.limits import MemoryLimits
from durabletask_sql.ports.hubs import Store, TaskHub
from durabletask_sql.ports.leases import HostIdentity
from durabletask_sql.ports.wakeups import News
from durabletask_sql.ports.work import WorkBoard
from durabletask_sql.service.entities import Entities
from durabletask_sql.service.hubs import HubAdministration
from durabletask_sql.service.orchestrations import Orchestrations
from durabletask_sql.settings import Settings
from durabletask_sql.storage.leases import process_start
from durabletask_sql.storage.store import SqlStore
from durabletask_sql.turn.intake import TurnLimits

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HubRuntime:
    """One task hub as this host serves it: what clients call, and where executors connect."""

    hub: TaskHub
    service: Orchestrations
    entities: Entities
    dispatcher: Dispatcher
    administration: HubAdministration

    @property
    def board(self) -> WorkBoard:
        """Where executors connect."""
        return self.dispatcher.board


class Host:
    """A host process: a database and the task hubs that it serves, the first being the default."""

    def __init__(self, store: Store, hubs: Mapping[str, HubRuntime], failed: "asyncio.Future[LoopEndedError]") -> None:
        """Use `open`. `failed` has a result when a part of the host has ended by a bug: it has to be stopped then."""
        self.store = store
        self.hubs = hubs
        self.failed = failed

    @classmethod
    async def open(cls, settings: Settings) -> "Host":
        """Open the database and its hubs; nothing runs before `start`. Raises what `SqlStore.open` does."""
        store = await SqlStore.open(settings.database, lease_seconds=settings.lease_seconds, upgrade=settings.upgrade,
                                    allow_unsafe=settings.allow_unsafe_database)
        await store.compile_ahead()
        return await cls.on(store, settings)

    @classmethod
    async def on(cls, store: Store, settings: Settings, new_clock: Callable[[], MovableClock] = SystemClock,
                 memory: MemoryLimits | None = None) -> "Host":
        """Open the hubs of a store that is open already, each with a clock and a memory of its own."""
        identity, hubs, failed = identify(), {}, asyncio.get_running_loop().create_future()
        for name in settings.hubs:
            dispatch = DispatcherSettings(settings.lease_seconds, memory or MemoryLimits(),
                                          TurnLimits(payload_bytes=settings.limits.payload_bytes))
            hub = await store.open_hub(name, settings.partitions)
            hubs[name] = _runtime(store, hub, identity, new_clock(), dispatch, settings, failed)
        return cls(store, hubs, failed)

    async def start(self) -> None:
        """Take the partitions of all hubs and begin to work."""
        for runtime in self.hubs.values():
            await runtime.dispatcher.start()
            runtime.dispatcher.loops.start("waiters", runtime.service.waiters.run())

    async def drain(self, seconds: float) -> None:
        """Hand out nothing more, and wait for what is out, at most so long."""
        await asyncio.gather(*(runtime.dispatcher.drain(seconds) for runtime in self.hubs.values()))

    async def stop(self) -> None:
        """Stop everything, give the partitions back and close the database."""
        await asyncio.gather(*(runtime.dispatcher.stop() for runtime in self.hubs.values()))
        await self.store.close()


def _runtime(store: Store, hub: TaskHub, identity: HostIdentity, clock: MovableClock, dispatch: DispatcherSettings,
             settings: Settings, failed: "asyncio.Future[LoopEndedError]") -> HubRuntime:
    def committed(checkpoint: TurnCheckpoint) -> None:
        service.waiters.tell(checkpoint.row)

    def heard(news: News) -> None:
        service.waiters.notify(news.changed)
        if news.anything:
            service.waiters.hint()

    def ended(error: LoopEndedError) -> None:
        if not failed.done():
            failed.set_result(error)

    dispatcher = Dispatcher(hub, identity, store.committer(hub), store.leases(hub), store.deliveries(hub),
                            store.wakeups(hub, identity.host_id), clock, dispatch, Listeners(committed, heard, ended))
    service = Orchestrations(hub, store.instances(hub), clock, settings.limits, dispatcher)
    entities = Entities(hub, store.entities(hub), clock, settings.limits, dispatcher)
    administration = HubAdministration(hub, store, dispatcher.start_over, allowed=settings.manage_hubs)
    return HubRuntime(hub, service, entities, dispatcher, administration)


def identify() -> HostIdentity:
    """Return who this process is, so that a successor on the same machine can tell that it is gone."""
    pid = os.getpid()
    return HostIdentity(new_host_id(), f"{socket.gethostname()}:{pid}", _machine(), pid, process_start(pid))


def _machine() -> str:
    """Return what identifies this boot and process namespace; "" where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
