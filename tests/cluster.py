"""PostgreSQL servers that a test may restart, kill and promote: a primary, and a synchronous standby of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from postgres import SETTINGS, NoPostgresError, _free_port, _user, _wait_until_ready, command_of, provide_binaries


class PostgresNode:
    """One server with a data folder of its own; its port stays the same over restarts."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.port = _free_port()
        self.log = home / "server.log"
        self._settings = settings
        self._binaries, self._user = provide_binaries(), _user()
        self._process: subprocess.Popen[bytes] | None = None
        home.mkdir()
        if self._user is not None:
            home.chmod(0o755)
            shutil.chown(home, self._user)

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def run(self, command: str, *arguments: str) -> None:
        done = subprocess.run(command_of(self._user, self._binaries / command, *arguments), check=False, cwd=self.home,
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            message = f"{command} failed: {done.stderr.strip() or done.stdout.strip()}"
            raise NoPostgresError(message)

    def initialize(self) -> None:
        self.run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-instructions")

    def copy(self, primary: PostgresNode) -> None:
        """Become a standby of a primary that runs."""
        self.run("pg_basebackup", "-D", "data", "-R", "-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres",
                 "--checkpoint=fast")

    def start(self) -> None:
        options = {**SETTINGS, **self._settings, "port": str(self.port), "listen_addresses": "127.0.0.1",
                   "unix_socket_directories": str(self.home), "logging_collector": "off"}
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                command_of(self._user, self._binaries / "postgres", "-D", "data",
                           *(part for name, value in options.items() for part in ("-c", f"{name}={value}"))),
                cwd=self.home, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
        _wait_until_ready(self._binaries, self.port, self._process, self.home)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT is a fast shutdown, SIGQUIT an immediate one, as a crash would be."""
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.wait(60)
        self._process = None

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        self.stop(how)
        self.start()

    def promote(self) -> None:
        self.run("pg_ctl", "promote", "-D", "data", "-w")

    def kill(self) -> None:
        """Kill it outright: its postmaster, whose children find out and leave."""
        assert self._process is not None
        children = _children(self._process.pid)
        self.stop(signal.SIGKILL)
        self._until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "its children live on")

    def kill_backend(self) -> None:
        """Kill one backend: the postmaster lives on, ends all the others, and the server recovers as from a crash."""
        before = self._counts_since()
        with psycopg.connect(self.url, autocommit=True) as connection:
            os.kill(connection.info.backend_pid, signal.SIGKILL)
        self._until(lambda: self._counts_since() not in (None, before), "it does not recover")

    def _counts_since(self) -> str | None:
        """Return since when the server counts what it does, which is since its last recovery; None: it does not answer."""
        try:
            with psycopg.connect(self.url) as connection:
                row = connection.execute("SELECT pg_stat_get_bgwriter_stat_reset_time()::text").fetchone()
        except psycopg.OperationalError:
            return None
        assert row is not None
        return str(row[0])

    @staticmethod
    def _until(condition: Callable[[], bool], otherwise: str) -> None:
        for _ in range(600):
            if condition():
                return
            time.sleep(0.05)
        raise NoPostgresError(otherwise)


def _children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in listed.split()]


@contextmanager
def nodes(count: int, **settings: str) -> Iterator[list[PostgresNode]]:
    """So many servers that do not run yet; whatever runs at the end is stopped."""
    with tempfile.TemporaryDirectory(prefix="durabletask-sql-pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        found = [PostgresNode(Path(folder) / f"node-{number}", **settings) for number in range(count)]
        try:
            yield found
        finally:
            for node in found:
                node.stop(signal.SIGQUIT)


@contextmanager
def synchronous_pair(**settings: str) -> Iterator[tuple[PostgresNode, PostgresNode]]:
    """A primary and a standby, which has whatever the primary has acknowledged."""
    with nodes(2, **settings) as (primary, standby):
        primary.initialize()
        primary.start()
        standby.copy(primary)
        standby.start()
        with psycopg.connect(primary.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
            for _ in range(300):
                row = connection.execute("SELECT sync_state FROM pg_stat_replication").fetchone()
                if row == ("sync",):
                    break
                connection.execute("SELECT pg_sleep(0.1)")
            assert row == ("sync",)
        yield primary, standby


def either(primary: PostgresNode, standby: PostgresNode) -> str:
    """The URL of whichever of the two can be written to."""
    return (f"postgresql://postgres@/postgres?host=127.0.0.1,127.0.0.1&port={primary.port},{standby.port}"
            "&target_session_attrs=read-write")
