"""The line between hosts: LISTEN and NOTIFY on PostgreSQL, `PRAGMA data_version` on a SQLite file.

One channel a hub. Notifications are sent after the commit that they tell of, on a connection of their own: inside the
transaction they would take a lock at COMMIT that all others wait for. Every host sends a beat now and then. By the beats
of others it knows that somebody listens, and by its own that what is sent arrives: through a transaction pooler, or on
a connection that died without a word, it does not.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psycopg
from sqlalchemy import bindparam, func, select

from durabletask_sql.errors import DurableTaskSqlError
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.wakeups import News
from durabletask_sql.storage.database import Database
from durabletask_sql.storage.dialect import TEXT, Statement
from durabletask_sql.storage.faults import one_line
from durabletask_sql.storage.notices import decode_notice, encode_notices
from durabletask_sql.storage.session import Session, asked
from durabletask_sql.storage.sqlite import SqliteSession

_log = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
ECHO_SECONDS = 5.0  # within which a beat has to come back
_PEER_SECONDS = 2.5 * BEAT_SECONDS
_FIRST_RETRY_SECONDS = 0.25
_LAST_RETRY_SECONDS = 30.0
_DEAF_SECONDS = 60.0
_LOOK_SECONDS = 0.02

NOTIFY = Statement("the transaction", lambda v: (
    select(func.pg_notify(bindparam("channel", type_=TEXT), v.c.payload)).select_from(v)), {"payload": TEXT})


class PostgresWakeups:
    """Implements `ports.wakeups.Wakeups` for one hub and host over LISTEN and NOTIFY."""

    def __init__(self, database: Database, hub: TaskHub, host_id: int) -> None:
        """Take the lane of notifications; `run` connects."""
        self._database = database
        self._hub = hub
        self._host_id = host_id
        self._channel = f"durabletask_{hub.hub_id}"
        self._peers: dict[int, float] = {}
        self._beat_now = asyncio.Event()
        self._echoed = asyncio.Event()
        self._told_deaf = False
        self.hears = False

    @property
    def is_heard(self) -> bool:
        """Whether a beat of another host came lately."""
        return any(time.monotonic() - heard < _PEER_SECONDS for heard in self._peers.values())

    async def tell(self, news: News) -> None:
        """Tell the others."""
        await self._notify(encode_notices(self._host_id, news))

    async def _notify(self, payloads: list[str]) -> None:
        await self._database.notices.run(lambda session: asked(
            session, NOTIFY, [(payload,) for payload in payloads], hub=self._hub.hub_id, channel=self._channel))

    async def run(self, hear: Callable[[News], None]) -> None:
        """Listen until cancelled, connecting again after a loss."""
        delay = _FIRST_RETRY_SECONDS
        while True:
            try:
                await self._listen(hear)
                delay = _DEAF_SECONDS
            except (psycopg.Error, OSError, DurableTaskSqlError) as error:
                delay = _FIRST_RETRY_SECONDS if self.hears else min(2 * delay, _LAST_RETRY_SECONDS)
                _log.info("no wake-ups from other hosts for now, polling instead: %s", one_line(error))
            self.hears = False
            await asyncio.sleep(delay)

    async def _listen(self, hear: Callable[[News], None]) -> None:
        """Listen on one connection until that is lost, which is an error; return if nothing arrives in the first place."""
        lost = asyncio.Event()
        connection = await psycopg.AsyncConnection.connect(
            self._database.url.location, autocommit=True, application_name="durabletask-sql wake-ups", connect_timeout=10,
            keepalives_idle=10, keepalives_interval=5, keepalives_count=3)
        async with connection:
            await connection.execute(f"LISTEN {self._channel}")
            loop, socket = asyncio.get_running_loop(), connection.pgconn.socket
            loop.add_reader(socket, self._receive, connection, socket, hear, lost)
            try:
                while not lost.is_set() and await self._beat(hear):
                    await self._until_next_beat(lost)
            finally:
                if not lost.is_set():
                    loop.remove_reader(socket)
        if self.hears:
            message = "the connection that listens for them was lost"
            raise psycopg.OperationalError(message)

    async def _beat(self, hear: Callable[[News], None]) -> bool:
        """Send a beat and wait for it to come back; False when it does not."""
        self._echoed.clear()
        self._beat_now.clear()
        await self._notify(encode_notices(self._host_id, News()))
        with suppress(TimeoutError):
            async with asyncio.timeout(ECHO_SECONDS):
                await self._echoed.wait()
                if not self.hears:
                    self.hears = True
                    hear(News(anything=True))  # what was told before is missed
                return True
        if not self.hears and not self._told_deaf:
            self._told_deaf = True
            _log.warning("notifications sent to the database %s do not arrive, as it is behind a transaction pooler: what "
                         "other hosts write is found by polling; connect hosts to PostgreSQL directly",
                         self._database.url.shown)
        return False

    async def _until_next_beat(self, lost: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (self._beat_now, lost)]
        try:
            await asyncio.wait(waits, timeout=BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _receive(self, connection: psycopg.AsyncConnection[Any], socket: int, hear: Callable[[News], None],
                 lost: asyncio.Event) -> None:
        """Take what has come on the connection."""
        try:
            connection.pgconn.consume_input()
        except psycopg.Error:
            asyncio.get_running_loop().remove_reader(socket)  # now, before its number is somebody else's
            lost.set()
            return
        while (notified := connection.pgconn.notifies()) is not None:
            self._take(notified.extra.decode(), hear)

    def _take(self, payload: str, hear: Callable[[News], None]) -> None:
        notice = decode_notice(payload, self._hub.partition_count)
        if notice is None:
            _log.warning("channel %s: a notification that no host has sent: %.100r", self._channel, payload)
            return
        if notice.host_id == self._host_id:
            self._echoed.set()
            return
        if notice.host_id not in self._peers:
            self._beat_now.set()  # so that it hears of this host at once
        now = time.monotonic()
        self._peers = {host: heard for host, heard in self._peers.items() if now - heard < _PEER_SECONDS}
        self._peers[notice.host_id] = now
        if notice.news:
            hear(notice.news)


class SqliteWakeups:
    """Implements `ports.wakeups.Wakeups` for a SQLite file: a number tells that some other process has committed.

    Whether there is a reason to look at the number is told by the log's file, to which a thread looks every 20 ms: that
    costs a third of what waking the event loop costs.
    """

    hears = True
    is_heard = False  # others see it by themselves

    def __init__(self, database: Database) -> None:
        """Watch through the writer's connection, to which this process's own commits do not count."""
        self._database = database

    async def tell(self, news: News) -> None:
        """Do nothing: a commit is news enough."""

    async def run(self, hear: Callable[[News], None]) -> None:
        """Look until cancelled."""
        written, stop, seen = asyncio.Event(), Event(), None
        notify = partial(asyncio.get_running_loop().call_soon_threadsafe, written.set)
        Thread(target=self._watch, args=(notify, stop), name="durabletask-watch", daemon=True).start()
        try:
            while True:
                await written.wait()
                written.clear()
                if stop.is_set():
                    message = "the thread that looks for what other processes write has ended"
                    raise RuntimeError(message)
                try:
                    version = await self._database.committer.run(_data_version, short=True)
                except DurableTaskSqlError as error:
                    _log.info("it cannot be told whether another process has written, so it is looked for: %s", error)
                    version = None
                if version is None or version != seen:
                    seen = version
                    hear(News(anything=True))
        finally:
            stop.set()

    def _watch(self, notify: Callable[[], object], stop: Event) -> None:
        """Notify whenever the log was written to, and once more: two commits within a clock's tick look like one."""
        log, before, again = Path(f"{self._database.url.location}-wal"), None, False
        with suppress(RuntimeError):  # the loop is closed
            try:
                while not stop.wait(_LOOK_SECONDS):
                    try:
                        found = log.stat()
                        mark = (found.st_mtime_ns, found.st_size)
                    except OSError:
                        continue
                    again, before, changed = mark != before, mark, again or mark != before
                    if changed:
                        notify()
            finally:
                stop.set()
                notify()


def _data_version(session: Session) -> int:
    assert isinstance(session, SqliteSession)
    return session.data_version()
