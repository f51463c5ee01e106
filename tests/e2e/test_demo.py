"""The demo of the installed package: what it shows, what it leaves, and that it takes its processes along."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sqlite3
import subprocess

import pytest

from checker import check_hub
from e2e.conftest import clean_environment

ORDERS, ACTIVITIES = 5, 101
STEPS = ["starting a server on a fresh SQLite file", "starting a worker", "orders are under way", "items picked",
         "killing the server with SIGKILL", "starting it again", "shipping note", "order-1: COMPLETED"]


def test_the_demo_shows_that_a_killed_server_loses_and_doubles_nothing(installed, tmp_path):
    (tmp_path / "durabletask-demo.db").write_text("left over from an older demo")
    done = subprocess.run([*installed.command, "demo"], cwd=tmp_path, env=clean_environment(), capture_output=True, text=True,
                          check=False, timeout=180, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, ""), done
    places = [done.stdout.find(step) for step in STEPS]
    assert -1 not in places
    assert places == sorted(places)
    rows = re.findall(r"^order-\d +COMPLETED +(\d+) +(\d+) +(\d+) +[\d.]+$", done.stdout, re.MULTILINE)
    assert len(rows) == ORDERS
    for scheduled, results, twice in rows:
        assert (results, twice) == (scheduled, "0")
        assert int(scheduled) >= ACTIVITIES
    assert re.search(r"All 5 orders completed in [\d.]+ s, over a killed server: \d+ activity results, none lost, none "
                     r"counted twice\.", done.stdout)
    assert check_hub(f"sqlite:///{tmp_path / 'durabletask-demo.db'}") == []
    shell = shlex.split(re.search(r"look at it with `(.*)`", done.stdout)[1])
    assert shell[:2] == ["sqlite3", "durabletask-demo.db"]
    with sqlite3.connect(tmp_path / "durabletask-demo.db") as connection:
        found = connection.execute(shell[2]).fetchall()
    connection.close()
    assert {f"order-{number}" for number in range(1, ORDERS + 1)} <= {row[0] for row in found}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("moment", ["starting a worker", "orders are under way"])
def test_an_interrupted_demo_leaves_no_process_behind(installed, tmp_path, number, moment):
    """The signal goes to the demo's process group, as a terminal's Ctrl-C does, and again while it stops."""
    process = subprocess.Popen([*installed.command, "demo"], cwd=tmp_path, env=clean_environment(), text=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               start_new_session=True)
    try:
        for line in process.stdout:
            if moment in line:
                break
        os.killpg(process.pid, number)
        os.killpg(process.pid, number)
        said = process.communicate(timeout=45)[1]  # ends when the last process that writes there does
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, said) == (128 + number, "")


def test_a_demo_that_would_overwrite_a_folder_is_refused(installed, tmp_path):
    (tmp_path / "mine").mkdir()
    done = installed.run("demo", "--database", "mine", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "durabletask-sql: mine is a folder: name a file for the demo with --database\n"


def test_without_the_sdk_the_demo_says_what_to_install(installed, tmp_path):
    code = "import sys; sys.modules['durabletask'] = None; from durabletask_sql.cli import main; sys.exit(main(['demo']))"
    done = subprocess.run([installed.python, "-c", code], cwd=tmp_path, env=clean_environment(), capture_output=True,
                          text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == 'durabletask-sql: the demo needs the Durable Task SDK: run `pip install "durabletask-sql[demo]"`\n'
