"""Every example runs as its users run it, and says what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SAID = {
    "order": "a book: receipt for a book\na lamp: released the reservation of a lamp\n",
    "fan_out": "most common: the, dog, fox\n",
    "approval": "approved by Ada\nnobody answered: passed on to the next in line\n",
    "periodic": "stopped\n",
    "client_only": "backup-letters is PENDING\nbackup-photos is PENDING\nbackup-photos is TERMINATED: not needed\n"
                   "backup-letters is TERMINATED: not needed\nleft: 0\n",
}


@pytest.mark.parametrize("name", SAID)
def test_an_example_runs_and_says_what_it_promises(server, name):
    done = subprocess.run([sys.executable, str(EXAMPLES / f"{name}.py"), server.address], check=False, capture_output=True,
                          text=True, timeout=60)
    said = re.sub(r"^round \d+ done\n", "", done.stdout, flags=re.MULTILINE)
    assert (done.returncode, said) == (0, SAID[name]), done.stderr


def test_the_first_program_of_the_readme_runs(server):
    program = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    done = subprocess.run([sys.executable, "-c", program.replace("localhost:4001", server.address)], check=False,
                          capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, '["Hello, Ada!", "Hello, Grace!"]\n'), done.stderr


def test_every_example_is_run_and_told_of():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == set(SAID)
    readme = (EXAMPLES / "README.md").read_text()
    assert all(f"({name}.py)" in readme for name in names)
