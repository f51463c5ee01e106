"""The house rules that a tool can hold: lengths, clocks and chance in their places, compose in step."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from postgres import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path for path in (ROOT / "provider").rglob("*.py") if not path.name.endswith("_pb2.py")]
PROGRAMS = [ROOT / "dev.py", *(path for folder in ("benchmarks", "examples", "migrations", "tools")
                               for path in (ROOT / folder).rglob("*.py"))]
OURS = [*SOURCES, *PROGRAMS, *(ROOT / "tests").rglob("*.py")]
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
WALL_CLOCK = re.compile(r"\btime\.time(_ns)?\(|\bfrom time import .*\btime(_ns)?\b|\b(datetime|date)\.(now|utcnow|today)\(")
CHANCE = re.compile(r"^\s*(import|from) (random|secrets|uuid)\b|\bos\.urandom\(", re.MULTILINE)
PROVIDER = ROOT / "provider" / "durabletask_sql"
# Storage tells the database's time where that is this process's own, on SQLite.
CLOCKS = {PROVIDER / "clock.py", PROVIDER / "storage" / "database.py"}
DICE = {PROVIDER / "ids.py"}


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", OURS, ids=name)
def test_no_file_is_longer_than_one_idea(path):
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", [path for path in (*SOURCES, *PROGRAMS) if "versions" not in path.parts], ids=name)
def test_functions_fit_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, node.name


@pytest.mark.parametrize("path", [path for path in SOURCES if path not in CLOCKS], ids=name)
def test_the_wall_clock_is_read_in_one_place(path):
    assert not WALL_CLOCK.search(path.read_text())


@pytest.mark.parametrize("path", [path for path in SOURCES if path not in DICE], ids=name)
def test_chance_comes_from_one_place(path):
    assert not CHANCE.search(path.read_text())


@pytest.mark.parametrize("text", ["time.time()", "time.time_ns() // 1_000", "from time import monotonic, time", "datetime.now(UTC)",
                                  "datetime.datetime.utcnow()", "date.today()"])
def test_readings_of_the_wall_clock_are_found(text):
    assert WALL_CLOCK.search(text)


@pytest.mark.parametrize("text", ["import random", "    from uuid import uuid4", "import secrets", "os.urandom(8)"])
def test_draws_of_chance_are_found(text):
    assert CHANCE.search(text)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nothing_waits_in_a_way_that_swallows_cancellation(path):
    """Before Python 3.12 `asyncio.wait_for` does when both come together; `asyncio.timeout` does not."""
    assert "asyncio.wait_for(" not in path.read_text()


@pytest.mark.parametrize("path", OURS, ids=name)
def test_no_process_is_started_by_a_fork_that_runs_handlers(path):
    """gRPC's may end the child where a client works; without these `subprocess` needs none."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            assert {word.arg for word in node.keywords}.isdisjoint({"preexec_fn", "user", "group", "extra_groups"})
            assert ast.unparse(node.func) not in ("os.fork", "os.forkpty", "pty.fork")


def test_the_package_claims_the_pythons_that_ci_runs_and_no_others():
    claimed = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert claimed == sorted(set(re.findall(r"python(3\.\d+)", (ROOT / ".ci" / "run").read_text())))


def test_the_compose_file_starts_what_the_tests_start():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    command = compose["services"]["postgres"]["command"]
    assert dict(option.split("=") for option in command[2::2]) == SETTINGS
    assert compose["services"]["server"]["command"][:2] == ["serve", "--upgrade"]
    assert compose["services"]["server"]["depends_on"]["postgres"]["condition"] == "service_healthy"
