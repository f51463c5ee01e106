"""Copies of a SQLite hub's files, made while its server is stopped with SIGSTOP, hold everything that was acknowledged.

DURABLETASK_SQL_COPIES says at how many random moments (default 4; ten to a server), DURABLETASK_SQL_SEEDS which ones. The
full run:

    DURABLETASK_SQL_COPIES=200 python3 dev.py test tests/crash/test_copies.py
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from crash.witness import Witness, examine, finish, under_load
from server import ServerProcess

COPIES = int(os.environ.get("DURABLETASK_SQL_COPIES", "4"))
A_SERVER = 10
SPARE = 100  # copies that there may be beyond those, at random moments as well
SEEDS = [int(seed) for seed in os.environ.get("DURABLETASK_SQL_SEEDS", "1").split(",")]


def copy_files(path: Path, place: Path) -> Path:
    """Copy the database with its log; the index beside them is made anew from these."""
    place.mkdir()
    for suffix in ("", "-wal"):
        if Path(f"{path}{suffix}").exists():
            shutil.copyfile(f"{path}{suffix}", place / f"{path.name}{suffix}")
    return place / path.name


@pytest.mark.parametrize("moments", [COPIES] if COPIES < A_SERVER else [A_SERVER] * (COPIES // A_SERVER))
@pytest.mark.parametrize("seed", SEEDS)
def test_a_copy_made_at_any_moment_has_what_was_acknowledged(tmp_path, seed, moments, request):
    chance, path, witness = random.Random(f"{seed} {request.node.name}"), tmp_path / "hub.db", Witness()
    known, number = Witness(), 0
    server = ServerProcess(f"sqlite:///{path}", tmp_path / "server.log").start()
    try:
        with under_load(server, witness):
            # On a slow machine nothing may have completed by then, or everything: the last copy must show both.
            while number < moments or not len(known.started) > len(known.completed) > 0:
                assert number < moments + SPARE
                time.sleep(chance.uniform(0.05, 0.5))  # a moment, not a condition: any one will do
                server.send(signal.SIGSTOP)
                known = witness.copy()
                copy = copy_files(path, tmp_path / f"copy-{number}")
                witness.pause.set()
                server.send(signal.SIGCONT)
                examine(copy, known, doctor=number in (0, moments - 1))
                witness.pause.clear()
                number += 1
    finally:
        server.kill()
    again = ServerProcess(f"sqlite:///{copy}", tmp_path / "again.log").start()
    try:
        finish(again, known)
    finally:
        again.kill()
