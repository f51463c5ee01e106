"""The real storage on a SQLite file, as hosts see it across a network: delayed, failing, and inline on the loop.

A call takes effect at one instant, whatever became of its caller meanwhile: a host that is frozen or dead may have its
last commit take effect behind its back.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from durabletask_sql.errors import OutcomeUnknownError, UnavailableError
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.wakeups import News
from durabletask_sql.storage.database import Database
from durabletask_sql.storage.dialect import SqliteCompiler
from durabletask_sql.storage.lanes import attempt
from durabletask_sql.storage.session import Session
from durabletask_sql.storage.sqlite import SqliteSession
from durabletask_sql.storage.store import SqlStore, ensure_schema
from durabletask_sql.storage.url import parse_url
from simulation.loop import Process, outside

T = TypeVar("T")

_COMPILER = SqliteCompiler()  # what it has compiled serves all runs
_template: bytes = b""

# Which of the store's operations can leave their outcome unknown: the others may be repeated, and are.
UNKNOWABLE = frozenset({"commit", "commit_alone", "load", "create", "send", "terminate", "terminate_now", "rewind",
                        "purge", "signal", "register", "heartbeat", "acquire", "ask", "hand_over", "raise_epochs",
                        "release"})


def scratch() -> Path:
    """Return a folder in memory, where there is one."""
    memory = Path("/dev/shm")  # noqa: S108 # a folder of our own is made in it
    return Path(tempfile.mkdtemp(prefix="simulation-", dir=memory if memory.is_dir() else None))


def new_database(folder: Path) -> str:
    """Return the URL of a fresh database with the present schema."""
    global _template  # noqa: PLW0603 # made once a process: migrations take longer than a whole run
    path = folder / "hub.db"
    if not _template:
        first = scratch()
        ensure_schema(parse_url(f"sqlite:///{first / 'hub.db'}"), upgrade=True)
        _template = (first / "hub.db").read_bytes()
        shutil.rmtree(first)
    path.write_bytes(_template)
    return f"sqlite:///{path}"


class InlineLane:
    """A lane without a thread: work runs at once, on the loop."""

    def __init__(self, path: str, *, writer: bool) -> None:
        self._session = SqliteSession(path, _COMPILER, writer=writer)
        if self._session._wal is not None:
            self._session._wal.after_commit = lambda _: None  # type: ignore[method-assign] # has a thread; the log stays short

    async def run(self, work: Callable[[Session], T], *, short: bool = False) -> T:
        del short
        return attempt(self._session, work)

    async def close(self) -> None:
        self._session.close()


class InlineDatabase(Database):
    """A SQLite file whose lanes are inline."""

    def __init__(self, url: str) -> None:
        self.url = parse_url(url)
        self.is_sqlite = True
        writer, reader = InlineLane(self.url.location, writer=True), InlineLane(self.url.location, writer=False)
        self.committer = self.clients = self.leases = self.solo = self.blocked = writer  # type: ignore[assignment]
        self.points = self.readers = reader  # type: ignore[assignment]
        self._lanes = (writer, reader)  # type: ignore[assignment]


@dataclass
class Weather:
    """How the network and the database are doing: delays in seconds, the share of calls that fail.

    `strike`, if there is one, says of each operation how it fails ("" if it does not): `before` it reaches the database,
    `lost` on the way to COMMIT, `after` its COMMIT, or with the host itself, `crash before` or `crash after`.
    """

    delay: float = 0.002
    slow: float = 0.0
    slow_seconds: float = 2.0
    failing: float = 0.0
    strike: Callable[[str], str] | None = None

    def draw(self, chance: random.Random) -> float:
        """Return how long one way takes."""
        longest = self.slow_seconds if chance.random() < self.slow else self.delay
        return chance.uniform(0.1, 1.0) * longest


class Link:
    """One host's way to the database."""

    def __init__(self, process: Process, weather: Weather, chance: random.Random, watch: Callable[..., None]) -> None:
        """`watch` is told of every call that took effect, with its operation, arguments and result."""
        self.process = process
        self.weather = weather
        self.kill = process.kill
        self._chance = chance
        self._watch = watch
        self._outside: Context = outside()
        self._zombies = chance.random() < 0.5  # what is under way when the host dies: does it take effect?

    async def call(self, name: str, work: Callable[[], Coroutine[Any, Any, T]], arguments: tuple[Any, ...]) -> T:
        """Run an operation over there."""
        loop, chance = asyncio.get_running_loop(), self._chance
        answer: asyncio.Future[T] = loop.create_future()
        there, back = self.weather.draw(chance), self.weather.draw(chance)
        fault = self._fault(name)
        if fault == "crash before":
            self.kill()
        elif fault == "before":
            loop.call_later(there, _fail, answer, UnavailableError("the database cannot be reached"),
                            context=self._outside)
        elif fault == "lost":
            loop.call_later(there + back, _fail, answer, OutcomeUnknownError("the connection was lost before COMMIT"),
                            context=self._outside)
        else:
            loop.call_later(there, self._take_effect, name, work, arguments, answer, back, fault,
                            context=self._outside)
        return await answer

    def _fault(self, name: str) -> str:
        if self.weather.strike is not None:
            return self.weather.strike(name)
        if self._chance.random() >= self.weather.failing:
            return ""
        return self._chance.choice(["before", "lost", "after"] if name in UNKNOWABLE else ["before"])

    def _take_effect(self, name: str, work: Callable[[], Coroutine[Any, Any, T]], arguments: tuple[Any, ...],
                     answer: asyncio.Future[T], back: float, fault: str) -> None:
        if self.process.dead and not self._zombies:
            return
        loop = asyncio.get_running_loop()
        try:
            result = at_once(work())
        except Exception as error:
            loop.call_later(back, _fail, answer, error, context=self._outside)
            return
        self._watch(self.process, name, arguments, result)
        if fault == "crash after":
            self.kill()
        elif fault == "after":
            loop.call_later(back, _fail, answer, OutcomeUnknownError("the connection was lost during COMMIT"),
                            context=self._outside)
        else:
            loop.call_later(back, _answer, answer, result, context=self._outside)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError("an operation of the store waits for something: it cannot be simulated at one instant")


def _answer(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


class SimulatedPort:
    """A port of the store over a link."""

    def __init__(self, port: object, link: Link) -> None:
        self._port = port
        self._link = link

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if not inspect.iscoroutinefunction(method):
            return method
        return lambda *args, **named: self._link.call(name, lambda: method(*args, **named), args)


class DeadLine:
    """Implements `ports.wakeups.Wakeups`: nothing arrives, so that all has to come by polling."""

    hears = is_heard = False

    async def run(self, hear: Callable[[News], None]) -> None:
        del hear
        await asyncio.Event().wait()

    async def tell(self, news: News) -> None:
        pass


class SimulatedStore:
    """Implements `ports.hubs.Store`, as a database server would: not a file of this process's own."""

    is_sqlite = False  # so that hosts follow the database's clock and poll with a back-off

    def __init__(self, url: str, link: Link) -> None:
        self._store = SqlStore(InlineDatabase(url))
        self._link = link
        self.shown = url
        self.open_hub = self._store.open_hub
        self.close = self._store.close

    @staticmethod
    def wakeups(hub: TaskHub, host_id: int) -> DeadLine:
        del hub, host_id
        return DeadLine()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def port(hub: TaskHub) -> SimulatedPort:
            return SimulatedPort(method(hub), self._link)

        return port
