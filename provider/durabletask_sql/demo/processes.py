"""The processes of the demo and of the torture: servers that can be killed and started again on their port, and workers.

Each is a process group of its own: a terminal's Ctrl-C reaches the demo alone, which then stops them in their order.
"""

import logging
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from durabletask_sql.errors import UnavailableError

_READY = re.compile(r"listening on 127\.0\.0\.1:(\d+)")
_STOP_SECONDS = 15


class Server:
    """`durabletask-sql serve` on a database; the port stays the same over restarts."""

    def __init__(self, database: str, *options: str, log: Path | None = None) -> None:
        """Name the URL, further options, and where its log goes (None: to this process's); nothing runs yet."""
        self._command = [sys.executable, "-m", "durabletask_sql", "serve", "--database", database, *options]
        self._log = log
        self._port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it and wait for its ready line. Raises UnavailableError when it does not come."""
        with ExitStack() as stack:
            log = None if self._log is None else stack.enter_context(self._log.open("a"))
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [*self._command, "--listen", f"127.0.0.1:{self._port}"], stdout=subprocess.PIPE, stderr=log,
                stdin=subprocess.DEVNULL, text=True, process_group=0)
        assert self._process.stdout is not None
        found = _READY.search(self._process.stdout.readline())
        if found is None:
            message = f"a server did not start (exit code {self._process.wait()})"
            raise UnavailableError(message)
        self._port = int(found[1])

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Kill it with SIGKILL: it gets no chance to save anything."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def stop(self) -> None:
        """Stop it as an operator would."""
        if self._process is not None:
            _stop(self._process)


class Worker:
    """A worker process; it also ends when this process does."""

    def __init__(self, address: str, *task_hub: str) -> None:
        """Start it."""
        self._command = [sys.executable, "-m", "durabletask_sql.demo.worker", address, *task_hub]
        self.start()

    def start(self) -> None:
        """Start it, again after a kill."""
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            self._command, stdin=subprocess.PIPE, process_group=0)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self._process.kill()
        self._process.communicate()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """Stop it."""
        _stop(self._process)


def _stop(process: "subprocess.Popen[Any]") -> None:
    """End a process, at first with a word and then without."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def silent_logger() -> logging.Logger:
    """Return a logger that says nothing: the SDK's own lines would drown the demo's."""
    logger = logging.Logger("durabletask-sql demo")  # noqa: LOG001 - outside the tree of loggers on purpose
    logger.addHandler(logging.NullHandler())
    return logger
