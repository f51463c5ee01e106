"""Threads that own connections: the drivers are synchronous, everything above is not."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock, local
from typing import Generic, TypeVar

from durabletask_sql.storage.session import Session

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

    async def run(self, work: Callable[[S], T]) -> T:
        """Run `work` with a session on a thread of this lane; transactions it leaves open are rolled back."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._call, work)

    def _call(self, work: Callable[[S], T]) -> T:
        session: S | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = self._open()
            with self._lock:
                self._sessions.append(session)
        try:
            return work(session)
        except BaseException:
            session.rollback()
            raise

    async def close(self) -> None:
        """Wait for what is under way and close the sessions."""
        await asyncio.to_thread(self._pool.shutdown)
        for session in self._sessions:
            session.close()
