"""The server as its users run it: a process of its own, started through the command line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

READY = re.compile(r"listening on (?:127\.0\.0\.1|\[::1\]):(\d+)")


class ServerProcess:
    """`durabletask-sql serve` on a database; the port stays the same over restarts."""

    def __init__(self, database: str, log: Path, *options: str, port: int = 0,
                 command: Sequence[str] = (sys.executable, "-m", "durabletask_sql")) -> None:
        self.database = database
        self.log = log
        self.options = options
        self.port = port
        self._command = command
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, timeout: float = 30.0) -> ServerProcess:
        """Start it and wait for its ready line."""
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [*self._command, "serve", "--database", self.database, "--listen", f"127.0.0.1:{self.port}", "--upgrade",
                 *self.options],
                stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True, env=_environment())
        timer = threading.Timer(timeout, self._process.kill)
        timer.start()
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        timer.cancel()
        found = READY.search(line)
        if found is None:
            self._process.kill()
            code = self._process.wait()
            message = f"the server did not get ready (exit code {code}): {line}{self.log.read_text()[-4000:]}"
            raise AssertionError(message)
        self.port = int(found[1])
        return self

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def is_running(self, seconds: float) -> bool:
        """Tell whether it is still there after so many seconds."""
        assert self._process is not None
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def wait(self, seconds: float) -> int:
        """Wait for it to end by itself; return its exit code."""
        assert self._process is not None
        return self._process.wait(seconds)

    def stop(self) -> int:
        """Stop it as an operator does; return its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it without a word."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        self.send(number)
        assert self._process is not None
        try:
            code = self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            if self._process.stdout is not None:
                self._process.stdout.close()
        return code


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DURABLETASK_SQL_")}
    return {**kept, "PYTHONUNBUFFERED": "1"}
