"""Threads that own connections: the drivers are synchronous, everything above is not.

Short work on a SQLite file, and of PostgreSQL's committer and reads of one instance, runs on the event loop itself: a
hand-over to a thread and back costs as much as a small transaction does, or more. What waits for PostgreSQL lets go of the
loop meanwhile. Where a SQLite file is slow, or another process is in the way, a thread waits for it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Lock, local
from typing import Any, Generic, TypeVar

from durabletask_sql.storage import yielding
from durabletask_sql.storage.faults import WouldWaitError
from durabletask_sql.storage.session import Session
from durabletask_sql.storage.sqlite import SqliteSession

S = TypeVar("S", bound=Session)
T = TypeVar("T")


class Lane(Generic[S]):
    """So many threads, each with a session of its own, opened when it is first needed."""

    def __init__(self, name: str, threads: int, open_session: Callable[[], S]) -> None:
        """Name the lane; nothing is opened yet."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"durabletask-{name}")
        self._open = open_session
        self._local = local()
        self._sessions: list[S] = []
        self._lock = Lock()

    async def run(self, work: Callable[[S], T], *, short: bool = False) -> T:
        """Run `work` with a session on a thread of this lane; transactions it leaves open are rolled back.

        `short` says that it takes little time unless the database is slow or somebody is in the way.
        """
        del short  # every piece of work goes to a thread here
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._call, work)

    def _call(self, work: Callable[[S], T]) -> T:
        session: S | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = self._open()
            with self._lock:
                self._sessions.append(session)
        return attempt(session, work)

    async def close(self) -> None:
        """Wait for what is under way and close the sessions."""
        await asyncio.to_thread(self._pool.shutdown)
        for session in self._sessions:
            session.close()


@dataclass(frozen=True, slots=True)
class _Call:
    """A piece of work that waits for the session, and where its caller waits."""

    work: Callable[[], Any]
    short: bool
    done: asyncio.Future[Any]

    def settle(self, ended: yielding.Ended) -> None:
        """Tell the caller, unless it has given up."""
        if self.done.done():
            return
        if ended.error is not None:
            self.done.set_exception(ended.error)
        else:
            self.done.set_result(ended.result)


class YieldingLane(Lane[S]):
    """A lane of one session: short work runs on the event loop and lets go of it while it waits, the rest on the thread.

    One piece of work at a time has the session. What has begun goes on to its end even if its caller gives up. The lane has
    to be closed before its loop ends: else what has begun holds its locks until PostgreSQL's idle timeout.
    """

    def __init__(self, name: str, open_session: Callable[[], S]) -> None:
        """Name the lane; nothing is opened yet."""
        super().__init__(name, 1, open_session)
        self._session: S | None = None
        self._side: yielding.Side | None = None
        self._waiting = deque[_Call]()
        self._busy = False

    async def run(self, work: Callable[[S], T], *, short: bool = False) -> T:
        """Run `work` on the loop if it is short, else on the thread."""
        done: T = await self._ask(partial(self._call, work), short=short)
        return done

    def _ask(self, work: Callable[[], Any], *, short: bool) -> asyncio.Future[Any]:
        call = _Call(work, short, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if not self._busy:
            self._begin()
        return call.done

    def _begin(self) -> None:
        """Begin the oldest call whose caller still waits."""
        while self._waiting:
            call = self._waiting.popleft()
            if not call.done.done():
                self._busy = True
                self._carry_out(call)
                return
        self._busy = False

    def _carry_out(self, call: _Call) -> None:
        side = self._side = self._side or yielding.Side(self._pool)

        def ended(found: yielding.Ended) -> None:
            call.settle(found)
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._begin)
            else:
                self._busy = False

        if call.short:
            side.carry_out(call.work, ended)
            return
        try:
            thread = asyncio.get_running_loop().run_in_executor(self._pool, yielding.ended, call.work)
        except RuntimeError as error:  # the lane is closed
            ended(yielding.Ended(error=error))
        else:
            thread.add_done_callback(lambda found: ended(found.result()))

    def _call(self, work: Callable[[S], T]) -> T:
        if self._session is None:
            self._session = self._open()
            self._sessions.append(self._session)
        return attempt(self._session, work)

    async def close(self) -> None:
        """Wait for what is under way and close the session."""
        if self._side is not None:
            await self._ask(_nothing, short=True)
        await super().close()


def _nothing() -> None:
    """Be done when what was asked for before is."""


class NearLane(Lane[Session]):
    """A lane on a SQLite file: short work runs on the event loop while the file is fast and the one thread idle.

    The loop and the thread use the same session, never at the same time. How fast the file is, only the loop can tell:
    a thread waits for the interpreter as well. So after slow work the loop tries again when it has rested for so many
    times as long as that took, which bounds its share. One piece that is held up for some ten milliseconds, by a copy of
    the log for instance, does not make the file slow.
    """

    SLOW_SECONDS = 0.003
    RESTS = 100
    _WEIGHT = 0.05

    def __init__(self, name: str, open_session: Callable[[], SqliteSession],
                 now: Callable[[], float] = time.perf_counter) -> None:
        """Name the lane; nothing is opened yet. `now` tells seconds."""
        super().__init__(name, 1, open_session)
        self._open_near = open_session
        self._now = now
        self._session: SqliteSession | None = None
        self._away = 0  # pieces of work that the thread has, or is about to get
        self._pace = 0.0  # seconds that short work took on the loop, averaged over the last pieces
        self._rests_until = 0.0

    async def run(self, work: Callable[[Session], T], *, short: bool = False) -> T:
        """Run `work` on the loop if it is short and nothing is in the way, else on the thread."""
        if short and not self._away and self._now() >= self._rests_until:
            try:
                return self._timed(work)
            except WouldWaitError:
                pass
        with self._lock:
            self._away += 1
        future = self._pool.submit(self._work, work)
        future.add_done_callback(self._came_back)  # also when the caller has given up meanwhile
        return await asyncio.wrap_future(future)

    def _came_back(self, _: "Future[T]") -> None:
        with self._lock:
            self._away -= 1

    def _timed(self, work: Callable[[Session], T]) -> T:
        began = self._now()
        try:
            return self._work(work, may_wait=False)
        finally:
            ended = self._now()
            self._pace += (ended - began - self._pace) * self._WEIGHT
            if self._pace > self.SLOW_SECONDS:
                self._pace = self.SLOW_SECONDS  # one fast piece after the rest is enough to stay
                self._rests_until = ended + self.RESTS * (ended - began)

    def _work(self, work: Callable[[Session], T], *, may_wait: bool = True) -> T:
        if self._session is None:
            self._session = self._open_near()
            self._sessions.append(self._session)
        self._session.may_wait = may_wait
        return attempt(self._session, work)


def attempt(session: S, work: Callable[[S], T]) -> T:
    """Run `work` with a session; a transaction that it leaves open by an error is rolled back."""
    try:
        return work(session)
    except BaseException:
        session.rollback()
        raise
