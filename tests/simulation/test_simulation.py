"""Hosts, workers, clients, the database and the clock in one process under a seed: what must hold holds for all of them.

`python tests/simulation/run.py --seeds 2000` runs more of them, `--seed N --trace` shows one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")
ENOUGH = 200  # seeds, within which each planted bug is found; most are in fewer than ten
SEEDS = int(os.environ.get("DURABLETASK_SQL_SEEDS", "100"))


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run seeds in a process of their own: there the order of sets of texts is a part of the seed."""
    return subprocess.run([sys.executable, RUN, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("half", [0, 1])
def test_everything_completes_whatever_happens_meanwhile(half):
    done = run("--first", half * (SEEDS // 2), "--seeds", SEEDS // 2)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_planted_bug_is_found():
    """In how many seeds each is found at present is in the table that `run.py --planted` writes."""
    parts = 2
    searches = [subprocess.Popen([sys.executable, RUN, "--planted", "--seeds", str(ENOUGH), "--part", str(part), str(parts)],
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for part in range(parts)]
    tables = [search.communicate()[0] for search in searches]
    assert [search.returncode for search in searches] == [0] * parts, "\n".join(tables)
    assert "".join(tables).count(" | ") >= 3 * 20


def test_a_seed_replays_exactly():
    first, second, other = run("--seed", 5, "--trace"), run("--seed", 5, "--trace"), run("--seed", 6, "--trace")
    traces = [done.stdout.splitlines()[:-1] for done in (first, second, other)]  # the last line has real seconds in it
    assert len(traces[0]) > 100
    assert traces[0] == traces[1]
    assert traces[0] != traces[2]
