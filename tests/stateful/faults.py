"""A store whose operations can be made to fail: before or after they take effect, with an error or with a crash."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from durabletask_sql.errors import DurableTaskSqlError, OutcomeUnknownError, UnavailableError
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.storage.store import SqlStore

T = TypeVar("T")

WRITES = frozenset({"commit", "commit_alone", "load", "create", "send", "terminate", "purge", "rewind", "raise_epochs", "acquire",
                    "register", "heartbeat", "release_claims", "signal"})


@dataclass
class Fault:
    """What happens to the write that comes after `skip` others: `how` is crash, unknown or unavailable."""

    how: str
    after: bool = False  # it takes effect first
    skip: int = 0


class Calls:
    """The operations of one host on its store."""

    def __init__(self) -> None:
        self.in_flight: list[str] = []
        self.fault: Fault | None = None
        self.struck = False
        self.crashed = asyncio.Event()
        self.changed = asyncio.Event()

    async def run(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """Run an operation, unless a fault strikes it."""
        self.in_flight.append(name)
        try:
            fault = self._strikes(name)
            if fault is None:
                return await work()
            if fault.after:
                await work()
            raise await self._error(fault)
        finally:
            self.in_flight.remove(name)
            self.changed.set()

    def _strikes(self, name: str) -> Fault | None:
        fault = self.fault
        if fault is None or name not in WRITES:
            return None
        if fault.skip:
            fault.skip -= 1
            return None
        self.fault, self.struck = None, True
        return fault

    async def _error(self, fault: Fault) -> DurableTaskSqlError:
        if fault.how == "unavailable":
            return UnavailableError("a fault of the test")
        if fault.how == "crash":
            self.crashed.set()
            self.changed.set()
            await asyncio.Future()  # nobody is there any more to hear of it
        return OutcomeUnknownError("a fault of the test")


class Port:
    """A port of the store whose coroutines, and steps of asynchronous iterators, are counted; coroutines may fail."""

    def __init__(self, port: object, calls: Calls) -> None:
        self._port = port
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if inspect.isasyncgenfunction(method):
            return lambda *args, **named: self._steps(name, method(*args, **named))
        if not inspect.iscoroutinefunction(method):
            return method
        return lambda *args, **named: self._calls.run(name, lambda: method(*args, **named))

    async def _steps(self, name: str, found: AsyncIterator[T]) -> AsyncIterator[T]:
        """While a step is under way, no time passes: how long it takes must not matter."""
        while True:
            try:
                one = await self._calls.run(name, found.__anext__)
            except StopAsyncIteration:
                return
            yield one


class FaultyStore:
    """Implements `ports.hubs.Store`."""

    def __init__(self, store: SqlStore, calls: Calls) -> None:
        self._store = store
        self._calls = calls
        self.is_sqlite = store.is_sqlite
        self.shown = store.shown
        self.open_hub = store.open_hub
        self.close = store.close

    def committer(self, hub: TaskHub) -> Any:
        return Port(self._store.committer(hub), self._calls)

    def instances(self, hub: TaskHub) -> Any:
        return Port(self._store.instances(hub), self._calls)

    def entities(self, hub: TaskHub) -> Any:
        return Port(self._store.entities(hub), self._calls)

    def leases(self, hub: TaskHub) -> Any:
        return Port(self._store.leases(hub), self._calls)

    def deliveries(self, hub: TaskHub) -> Any:
        return Port(self._store.deliveries(hub), self._calls)

    def wakeups(self, hub: TaskHub, host_id: int) -> Any:
        return self._store.wakeups(hub, host_id)  # it listens as long as the host lives
