"""What is in the wheel, and the commands that need no server: help, version, schema."""

from __future__ import annotations

import zipfile

import pytest

from e2e.conftest import ROOT

COMMANDS = [(), ("serve",), ("schema",), ("schema", "upgrade"), ("schema", "current"), ("schema", "check"), ("demo",)]


def test_the_wheel_carries_the_migrations_the_types_and_the_license(installed):
    names = zipfile.ZipFile(installed.wheel).namelist()
    for path in (ROOT / "migrations").rglob("*.py"):
        assert f"durabletask_sql/_migrations/{path.relative_to(ROOT / 'migrations')}" in names
    assert "durabletask_sql/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "provider"))]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(installed, tmp_path, command):
    done = installed.run(*command, "--help", folder=tmp_path)
    assert done.returncode == 0
    assert "example: durabletask-sql " in " ".join(done.stdout.split())
    assert not done.stderr


def test_the_version_is_that_of_the_package(installed, tmp_path):
    done = installed.run("--version", folder=tmp_path)
    assert done.stdout.split() == ["durabletask-sql", installed.wheel.name.split("-")[1]]


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("serve", "--nonsense"), ("serve", "--partitions", "four"),
                                       ("schema",), ("schema", "downgrade")], ids=" ".join)
def test_wrong_usage_is_told_with_exit_code_2(installed, tmp_path, arguments):
    done = installed.run(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert "usage: durabletask-sql" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_schema_is_checked_upgraded_and_told(installed, tmp_path, database_url):
    """`check` fails with the command to run, `upgrade` may be repeated, `current` tells what is there and what is needed."""
    def schema(action):
        return installed.run("schema", action, "--database", database_url, folder=tmp_path)

    before = schema("check")
    assert (before.returncode, before.stdout) == (1, "")
    assert f"durabletask-sql schema upgrade --database {database_url}" in before.stderr
    assert schema("current").stdout.startswith("none (this program needs ")
    for _ in range(2):
        assert schema("upgrade").returncode == 0
    assert schema("check").returncode == 0
    revision, needed = schema("current").stdout.split(" (this program needs ")
    assert f"{revision})\n" == needed


def test_schema_takes_the_database_from_the_environment(installed, tmp_path):
    done = installed.run("schema", "upgrade", folder=tmp_path, variables={"DURABLETASK_SQL_DATABASE": "sqlite:///there.db"})
    assert done.returncode == 0
    assert (tmp_path / "there.db").exists()
