"""The programs of the other languages: how they are built, run as workers and as clients, and what they print."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server import ServerProcess

HERE = Path(__file__).parent
CLIENT_SECONDS = 150
STOP_SECONDS = 40


@dataclass(frozen=True)
class Language:
    """A language's project: the commands that build it, and those that run its two programs."""

    name: str
    tools: tuple[str, ...]
    build: tuple[str, ...]
    sources: tuple[str, ...]
    built: str
    worker: tuple[str, ...]
    client: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return HERE / self.name

    def prepare(self) -> None:
        """Build it when its sources have changed since; fail, never skip, when that cannot be."""
        for tool in self.tools:
            if shutil.which(tool) is None:
                pytest.fail(f"`{tool}` is not on the PATH: the {self.name} scenarios need it", pytrace=False)
        mark = hashlib.sha256()
        for source in sorted(path for pattern in self.sources for path in self.folder.glob(pattern)):
            mark.update(source.read_bytes())
        stamp = self.folder / self.built / ".built-from"
        if stamp.exists() and stamp.read_text() == mark.hexdigest():
            return
        done = subprocess.run(self.build, cwd=self.folder, check=False, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL)
        if done.returncode:
            pytest.fail(f"`{' '.join(self.build)}` failed in {self.folder}:\n{done.stdout}{done.stderr}", pytrace=False)
        stamp.parent.mkdir(exist_ok=True)
        stamp.write_text(mark.hexdigest())


_JAVA = ("java", "-cp", "target/classes:target/libraries/*")

LANGUAGES = {language.name: language for language in (
    Language("javascript", ("node", "npm"), ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"),
             ("package-lock.json",), "node_modules", ("node", "worker.mjs"), ("node", "client.mjs")),
    Language("java", ("java", "javac", "mvn"), ("mvn", "-q", "-B", "compile"), ("pom.xml", "src/**/*.java"), "target",
             (*_JAVA, "scenarios.Worker"), (*_JAVA, "scenarios.Client")),
    Language("go", ("go",), ("go", "build", "-o", "bin/", "./cmd/..."), ("go.*", "**/*.go"), "bin", ("bin/worker",),
             ("bin/client",)),
)}


class Results:
    """What a client's scenarios saw, by name; asking for one that failed fails with its error."""

    def __init__(self, lines: str, code: int, told: Callable[[], str]) -> None:
        self._lines = {line["scenario"]: line for line in map(json.loads, lines.splitlines())}
        self._missing = {"error": f"the client ended with code {code} and printed nothing for it"}
        self._told = told

    def __getitem__(self, scenario: str) -> Any:
        line = self._lines.get(scenario, self._missing)
        if "error" in line:
            pytest.fail(f"scenario {scenario!r}: {line['error']}\n{self._told()}", pytrace=False)
        return line["result"]


@dataclass(frozen=True)
class Programs:
    """The two programs of a language on a task hub of a server; what they write to standard error is in `log`."""

    language: Language
    server: ServerProcess
    hub: str
    log: Path

    @contextmanager
    def worker(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        """A running worker, which has to end by itself, with code 0, when told to."""
        with self.log.open("a") as log:
            process = self._start(self.language.worker, options, log)
        timer = threading.Timer(STOP_SECONDS, process.kill)
        timer.start()
        assert process.stdout is not None
        ready = process.stdout.readline()
        timer.cancel()
        try:
            assert ready == "ready\n", self.told()
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            timer = threading.Timer(STOP_SECONDS, process.kill)
            timer.start()
            code = process.wait()
            timer.cancel()
            process.stdout.close()
        assert code == 0, f"the worker ended with code {code}\n{self.told()}"

    def client(self, *scenarios: str) -> Results:
        """Run scenarios (none named: all) and return what they saw."""
        with self.log.open("a") as log:
            process = self._start(self.language.client, scenarios, log)
        timer = threading.Timer(CLIENT_SECONDS, process.kill)
        timer.start()
        lines, _ = process.communicate()
        timer.cancel()
        return Results(lines, process.returncode, self.told)

    def told(self) -> str:
        """Return the end of what the programs and the server wrote."""
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in (self.log, self.server.log))

    def _start(self, command: tuple[str, ...], options: tuple[str, ...], log: Any) -> subprocess.Popen[str]:
        self.language.prepare()
        return subprocess.Popen([*command, self.server.address, self.hub, *options], cwd=self.language.folder,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True)
