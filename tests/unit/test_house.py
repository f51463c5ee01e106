"""The house rules that a tool can hold: lengths, clocks and chance in their places, compose in step."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from postgres import NOTHING_FOUND, SETTINGS, find_binaries

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path for path in (ROOT / "provider").rglob("*.py") if not path.name.endswith("_pb2.py")]
OURS = [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "migrations").rglob("*.py")]
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
BANNED = re.compile(r"\b(time\.time(_ns)?\(|datetime\.(now|utcnow)\(|uuid4\(|random\.|secrets\.)")
# The clock and the ids are their homes; storage tells the database's time on SQLite.
ALLOWED = {"clock.py", "ids.py", "database.py"}


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", OURS, ids=name)
def test_no_file_is_longer_than_one_idea(path):
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_functions_fit_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, node.name


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name not in ALLOWED], ids=name)
def test_time_and_chance_come_from_their_modules(path):
    assert not BANNED.search(path.read_text())


def test_the_compose_file_starts_what_the_tests_start():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    command = compose["services"]["postgres"]["command"]
    assert dict(option.split("=") for option in command[2::2]) == SETTINGS
    assert compose["services"]["server"]["command"][:2] == ["serve", "--upgrade"]
    assert compose["services"]["server"]["depends_on"]["postgres"]["condition"] == "service_healthy"


def test_missing_server_binaries_are_told_in_one_sentence(tmp_path):
    assert find_binaries(tmp_path, path=str(tmp_path)) is None
    assert all(word in NOTHING_FOUND for word in ("DURABLETASK_SQL_TEST_POSTGRES_URL", "apt-get install postgresql", "root"))


def test_the_newest_server_binaries_are_taken(tmp_path):
    for version in ("9.6", "15", "13"):
        folder = tmp_path / version / "bin"
        folder.mkdir(parents=True)
        (folder / "postgres").touch()
    assert find_binaries(tmp_path) == tmp_path / "15" / "bin"
