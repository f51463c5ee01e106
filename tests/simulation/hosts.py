"""A host process in the simulation: the real dispatcher and services over a link to the database; it can be killed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.errors import DurableTaskSqlError
from durabletask_sql.host import Host, HubRuntime
from durabletask_sql.partitions.limits import MemoryLimits
from durabletask_sql.settings import Settings
from simulation.loop import Process, VirtualLoop, outside
from simulation.store import Link, SimulatedStore, Weather

T = TypeVar("T")

EPOCH = 1_700_000_000 * MICROSECONDS
LEASE_SECONDS = 12.0
MEMORY = MemoryLimits(share_messages=6, instances=14)  # small, so that ceilings and evictions are everyday matters


class GoneError(Exception):
    """The host cannot be reached, or did not answer."""


class SimulatedClock:
    """A machine's clock, wrong by `skew` microseconds until it follows the database's."""

    def __init__(self, loop: VirtualLoop, skew: int) -> None:
        self._loop = loop
        self._base = EPOCH + skew

    def now(self) -> int:
        return self._base + int(self._loop.time() * MICROSECONDS)

    def monotonic(self) -> float:
        return self._loop.time()

    def move(self, by: int) -> None:
        self._base += by


class SimulatedHost:
    """One incarnation of a host."""

    def __init__(self, loop: VirtualLoop, name: str, url: str, weather: Weather, chance: random.Random,
                 watch: Callable[..., None]) -> None:
        self.name = name
        self.process = Process(loop, name)
        self.serves = False
        self.workers = 0  # that are connected to it
        self.host: Host | None = None
        self.gone = asyncio.Event()  # its connections are broken
        self._loop = loop
        self._chance = chance
        self._clock = SimulatedClock(loop, chance.choice([0, 0, -3_600, 7_200]) * MICROSECONDS)
        link = Link(self.process, weather, chance, watch)
        link.kill = self.kill
        self._store = SimulatedStore(url, link)
        self._settings = Settings(database=url, partitions=3, lease_seconds=LEASE_SECONDS)
        self._outside = outside()
        self.process.spawn(self._start()).add_done_callback(_see)

    @property
    def runtime(self) -> HubRuntime:
        assert self.host is not None
        return self.host.hubs["default"]

    @property
    def is_up(self) -> bool:
        """Whether clients and workers can connect."""
        return self.serves and not self.process.dead

    async def _start(self) -> None:
        self.host = await Host.on(self._store, self._settings, lambda: self._clock, MEMORY)
        try:
            await self.host.start()
        except DurableTaskSqlError:
            self.kill()  # as a program that ends with an error; who runs it starts it again
            return
        self.serves = True

    def kill(self) -> None:
        """End it as SIGKILL does."""
        self.process.kill()
        self.serves = False
        self._loop.call_later(self._chance.uniform(0.0, 0.2), self.gone.set, context=self._outside)

    async def stop(self) -> None:
        """End it as an operator does."""
        assert self.host is not None
        self.serves = False
        self.gone.set()
        await self.host.stop()
        self.process.kill()

    async def call(self, work: Callable[[HubRuntime], Awaitable[T]], seconds: float) -> T:
        """Ask it something over the network. Raises GoneError when there is no answer within these seconds."""
        answer: asyncio.Future[T] = self._loop.create_future()
        there, back = self._chance.uniform(0.0, 0.01), self._chance.uniform(0.0, 0.01)

        async def serve() -> None:
            if answer.done():
                return  # who asked has gone: a server that was frozen does not even begin
            try:
                result: Any = await work(self.runtime)
            except Exception as error:
                self._loop.call_later(back, _settle, answer, None, error, context=self._outside)
            else:
                self._loop.call_later(back, _settle, answer, result, None, context=self._outside)

        if not self.is_up:
            raise GoneError(f"{self.name} is down")
        self._loop.call_later(there, lambda: None if self.process.dead else self.process.spawn(serve()),
                              context=self._outside)
        gone = asyncio.ensure_future(self.gone.wait())
        try:
            await asyncio.wait((answer, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        if not answer.done():
            answer.cancel()
            raise GoneError(f"{self.name} does not answer")
        return answer.result()


def _see(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.result()  # a bug in the simulation itself, or in what starts a host


def _settle(answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)
