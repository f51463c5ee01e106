"""A database session whose connection is lost at a chosen step of what it does: before any statement, or around COMMIT.

On PostgreSQL the socket is really shut, so that the driver and the server find out by themselves. SQLite has no
connection: there the disk fails at that step, and an error of COMMIT is a rollback.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from durabletask_sql.errors import UnavailableError
from durabletask_sql.storage.lanes import Lane
from durabletask_sql.storage.postgres import PostgresSession


class Cutter:
    """Cuts the sessions of a lane: once armed, the step that is `at`-th from then on.

    `after` holds for a COMMIT: it takes effect, and nobody hears of it. `struck` says which step it was.
    """

    def __init__(self, lane: Lane[Any], *, after: bool) -> None:
        self.struck = ""
        self._at, self._after = 0, after
        for session in lane._sessions:
            self._watch(session)
        for name in ("_open", "_open_near"):
            if hasattr(lane, name):
                setattr(lane, name, self._opens(getattr(lane, name)))

    def arm(self, at: int) -> None:
        self._at, self.struck = at, ""

    def disarm(self) -> None:
        self._at = 0

    def _opens(self, open_session: Callable[[], Any]) -> Callable[[], Any]:
        def opened() -> Any:
            session = open_session()
            self._watch(session)
            return session
        return opened

    def _watch(self, session: Any) -> None:
        for name in ("send", "flush", "commit"):
            setattr(session, name, self._stepping(session, name, getattr(session, name)))

    def _stepping(self, session: Any, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*given: Any, **named: Any) -> Any:
            if not self._strikes():
                return step(*given, **named)
            table = f" {given[0].table}" if name == "send" else ""
            self.struck = name + table
            if self._after and name == "commit" and isinstance(session, PostgresSession):
                step()
                shut(session)
                raise session._lose("cut by the test behind a COMMIT")
            if isinstance(session, PostgresSession):
                shut(session)
                return step(*given, **named)
            session.rollback()
            raise UnavailableError("SQLite cannot do this now: disk I/O error")
        return stepped

    def _strikes(self) -> bool:
        self._at -= 1
        return self._at == 0


def shut(session: PostgresSession) -> None:
    """Shut a session's socket under it."""
    if session._pipeline is None:
        return  # it is not connected: nothing to lose
    with socket.socket(fileno=os.dup(session._pipeline._pq.socket)) as connection:
        connection.shutdown(socket.SHUT_RDWR)
