"""dev.py: the commands of the README, on an environment that is already there."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {"demo": "-m durabletask_sql demo", "test": "-m pytest"}


PYTHON = """#!{python}
import signal, sys, time

def clean_up(*_):
    time.sleep(1)
    print("cleaned up", flush=True)
    sys.exit(130)

signal.signal(signal.SIGINT, clean_up)
print(*sys.argv[1:], flush=True)
if sys.argv[-1] != "wait":
    sys.exit(7)
time.sleep(30)
"""


@pytest.fixture
def environment(tmp_path):
    """An environment whose Python tells its arguments and takes a moment to clean up after Ctrl-C."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    mark = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + (ROOT / "constraints.txt").read_bytes()).hexdigest()
    for extra in ("dev", "demo"):
        (tmp_path / f"installed-{extra}").write_text(mark)
    return {**os.environ, "DURABLETASK_SQL_VENV": str(tmp_path)}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_hands_on_its_arguments_and_its_exit_code(environment, command):
    done = subprocess.run([sys.executable, str(ROOT / "dev.py"), command, "--some", "thing"], check=False, text=True,
                          capture_output=True, env=environment)
    assert (done.returncode, done.stdout) == (7, f"{COMMANDS[command]} --some thing\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_interrupted_may_clean_up(environment, command):
    # A job in the background ignores interrupts, and so would all that it starts.
    process = subprocess.Popen(["env", "--default-signal=INT", sys.executable, str(ROOT / "dev.py"), command, "wait"],
                               stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    assert process.stdout.readline() == f"{COMMANDS[command]} wait\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=20)[0] == "cleaned up\n"
    assert process.returncode == 130


@pytest.mark.parametrize(("arguments", "code"), [((), 2), (("nonsense",), 2), (("--help",), 0), (("-h",), 0)])
def test_without_a_command_it_tells_the_commands(arguments, code):
    done = subprocess.run([sys.executable, str(ROOT / "dev.py"), *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == code
    assert all(f"dev.py {command}" in done.stdout for command in ("demo", "test", "lint"))
