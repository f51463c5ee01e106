"""The demo's processes: a server that can be killed and started again on its port, and a worker.

Each is a process group of its own: a terminal's Ctrl-C reaches the demo alone, which then stops them in their order.
"""

import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from durabletask_sql.errors import UnavailableError

_READY = re.compile(r"listening on 127\.0\.0\.1:(\d+)")
_STOP_SECONDS = 15


class Server:
    """`durabletask-sql serve` on a SQLite file."""

    def __init__(self, database: Path) -> None:
        """Name the file; nothing runs before `start`."""
        self._database = database
        self._port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it and wait for its ready line. Raises UnavailableError when it does not come."""
        command = [sys.executable, "-m", "durabletask_sql", "serve", "--database", f"sqlite:///{self._database}",
                   "--listen", f"127.0.0.1:{self._port}", "--log-level", "error"]
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, process_group=0)
        assert self._process.stdout is not None
        found = _READY.search(self._process.stdout.readline())
        if found is None:
            message = f"the demo's server did not start (exit code {self._process.wait()})"
            raise UnavailableError(message)
        self._port = int(found[1])

    def kill(self) -> None:
        """Kill it with SIGKILL: it gets no chance to save anything."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Stop it as an operator would."""
        if self._process is not None:
            _stop(self._process)


class Worker:
    """The demo's worker process; it also ends when this process does."""

    def __init__(self, address: str) -> None:
        """Start it."""
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "durabletask_sql.demo.worker", address], stdin=subprocess.PIPE, process_group=0)

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
