"""Where the tests' PostgreSQL comes from: a given server, the newest binaries, Debian's package; else one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

import postgres
from postgres import NOTHING_FOUND, VARIABLE, NoPostgresError, find_binaries, provide_binaries, server

ROOT = Path(__file__).resolve().parents[2]


def test_a_given_server_comes_first(monkeypatch):
    monkeypatch.setenv(VARIABLE, "postgresql://somebody@elsewhere/db")
    monkeypatch.setattr(postgres, "provide_binaries", lambda: pytest.fail("a server was started"))
    with server() as url:
        assert url == "postgresql://somebody@elsewhere/db"


def test_the_newest_server_binaries_are_taken(tmp_path):
    for version in ("9.6", "15", "13"):
        folder = tmp_path / version / "bin"
        folder.mkdir(parents=True)
        (folder / "postgres").touch()
    assert find_binaries(tmp_path) == tmp_path / "15" / "bin"


@pytest.mark.parametrize(("user", "debian", "installs"), [(0, True, True), (0, False, False), (1000, True, False)])
def test_debians_package_is_installed_by_root_on_debian_and_by_nobody_else(monkeypatch, user, debian, installs):
    commands, found = [], []
    monkeypatch.setattr(postgres, "find_binaries", lambda: found[-1] if found else None)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(Path, "exists", lambda _: debian)

    def run(command, **_):
        commands.append(command)
        found.append(Path("/usr/lib/postgresql/99/bin"))

    monkeypatch.setattr(subprocess, "run", run)
    if installs:
        assert provide_binaries() == found[-1]
        assert commands[-1][:3] == ["apt-get", "install", "-y"]
        assert commands[-1][-1] == "postgresql"
    else:
        with pytest.raises(NoPostgresError):
            provide_binaries()
        assert commands == []


def test_without_a_server_the_tests_end_with_one_sentence_that_names_the_ways(tmp_path):
    assert find_binaries(tmp_path, path=str(tmp_path)) is None
    assert all(word in NOTHING_FOUND for word in (VARIABLE, "apt-get install postgresql", "root"))
    code = ("import os, sys; sys.path.insert(0, 'tests'); import postgres, pytest; postgres.find_binaries = lambda: None; "
            "os.geteuid = lambda: 1000; sys.exit(pytest.main(['-p', 'no:cacheprovider', 'tests/conformance/test_locks.py']))")
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT,
                          env=environment)
    assert done.returncode == 1
    assert done.stdout.count("no PostgreSQL for the tests") == 1
    assert NOTHING_FOUND in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.skipif(VARIABLE in os.environ, reason="the server was given")
def test_the_server_runs_as_somebody_else_than_root(postgres_server):
    with psycopg.connect(postgres_server) as connection:
        folder = Path(connection.execute("SHOW data_directory").fetchone()[0])
    assert folder.stat().st_uid != 0
