"""A power cut drops writes that were not synced yet: what a SQLite hub has acknowledged is there all the same.

A library that is preloaded into the server (`record.c`) records what it writes to the database and its log, and what
each sync covers. A state after a cut is what was covered by then, and any part of what was not: writes dropped here and
there, the last ones torn. DURABLETASK_SQL_CUTS says how many cuts are looked at (default 6), DURABLETASK_SQL_SEEDS which.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from crash.witness import Witness, examine, finish, under_load
from server import ServerProcess

CUTS = int(os.environ.get("DURABLETASK_SQL_CUTS", "6"))
SEEDS = [int(seed) for seed in os.environ.get("DURABLETASK_SQL_SEEDS", "1").split(",")]
SOURCE = Path(__file__).with_name("record.c")
WRITE, TRUNCATE, SYNC, UNLINK = range(4)
DATABASE, LOG = 0, 1
SECTOR = 512
CHECKPOINTS = 2  # syncs of the database file under load, before the recording is long enough
_HEADER = struct.Struct("=5Q")


@dataclass(frozen=True)
class Record:
    """One operation on a file; a sync covers the first `covered` records. `end` is where it ends in the recording."""

    kind: int
    file: int
    offset: int
    covered: int
    data: bytes
    end: int


def read_records(recording: Path) -> Iterator[Record]:
    content, at = recording.read_bytes(), 0
    while at + _HEADER.size <= len(content):
        kind, file, offset, length, covered = _HEADER.unpack_from(content, at)
        at += _HEADER.size
        data = content[at:at + length] if kind == WRITE else b""
        if kind == WRITE:
            at += length
        if at <= len(content):
            yield Record(kind, file, offset, covered, data, at)


def state_after(records: Sequence[Record], cut: int, chance: random.Random) -> dict[int, bytearray]:
    """Return the files as a cut after so many records may leave them."""
    covered = {file: max((one.covered for one in records[:cut] if one.kind == SYNC and one.file == file), default=0)
               for file in (DATABASE, LOG)}
    kept = chance.choice([0.0, 0.5, 0.9, 1.0])
    files: dict[int, bytearray] = {}
    for number, one in enumerate(records[:cut]):
        if one.kind == SYNC or (number >= covered[one.file] and chance.random() >= kept):
            continue
        if one.kind == UNLINK:
            files.pop(one.file, None)
            continue
        content, data = files.setdefault(one.file, bytearray()), one.data
        if number >= covered[one.file] and chance.random() < 0.2:
            data = data[:SECTOR * chance.randrange(len(data) // SECTOR + 1)]
        end = one.offset + len(data) if one.kind == WRITE else one.offset
        if len(content) < end:
            content.extend(bytes(end - len(content)))
        if one.kind == TRUNCATE:
            del content[end:]
        else:
            content[one.offset:end] = data
    return files


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.fail("no C compiler for the recording library: install one (Debian: `apt-get install gcc libc6-dev`)")
    built = tmp_path_factory.mktemp("record") / "record.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", built, SOURCE, "-ldl", "-lpthread"],
                   check=True)
    return built


def syncs_of_database(recording: Path) -> int:
    return sum(one.kind == SYNC and one.file == DATABASE for one in read_records(recording))


@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_power_cut_everything_acknowledged_is_there(tmp_path, monkeypatch, library, seed):
    chance, path, recording = random.Random(seed), tmp_path / "hub.db", tmp_path / "recording"
    told: list[tuple[int, Witness]] = []
    witness = Witness()
    with monkeypatch.context() as patched:
        for name, value in (("LD_PRELOAD", library), ("RECORD_FILE", path), ("RECORD_LOG", recording)):
            patched.setenv(name, str(value))
        server = ServerProcess(f"sqlite:///{path}", tmp_path / "server.log").start()
    try:
        begun, before = recording.stat().st_size, syncs_of_database(recording)
        with under_load(server, witness):
            until = time.monotonic() + 60
            while syncs_of_database(recording) < before + CHECKPOINTS and time.monotonic() < until:
                for _ in range(50):
                    known = witness.copy()  # before the size: what is known now was recorded by then
                    told.append((recording.stat().st_size, known))
                    time.sleep(0.01)
    finally:
        server.kill()
    records = list(read_records(recording))
    assert sum(one.kind == SYNC and one.file == DATABASE for one in records) >= before + CHECKPOINTS
    first = next(number for number, one in enumerate(records) if one.end >= begun)
    for number in range(CUTS):
        cut = chance.randrange(first, len(records)) + 1
        place = tmp_path / f"cut-{number}"
        place.mkdir()
        for file, content in state_after(records, cut, chance).items():
            (place / f"hub.db{'-wal' if file == LOG else ''}").write_bytes(content)
        known = max((known for size, known in told if size <= records[cut - 1].end), key=lambda one: len(one.started),
                    default=Witness())
        examine(place / "hub.db", known, doctor=number in (0, CUTS - 1))
    again = ServerProcess(f"sqlite:///{place / 'hub.db'}", tmp_path / "again.log").start()
    try:
        finish(again, known)
    finally:
        again.kill()


def test_writes_that_were_not_synced_are_dropped_and_others_are_not():
    """The model itself: with the syncs left out of the recording, something acknowledged would go."""
    records = [Record(WRITE, LOG, 0, 0, b"a" * 1024, 0), Record(SYNC, LOG, 0, 1, b"", 0),
               Record(WRITE, LOG, 1024, 0, b"b" * 1024, 0), Record(WRITE, DATABASE, 0, 0, b"c" * 1024, 0)]
    states = [state_after(records, 4, random.Random(seed)) for seed in range(50)]
    assert {bytes(state[LOG][:1024]) for state in states} == {b"a" * 1024}
    assert {len(state[LOG]) for state in states} > {1024, 2048}
    assert {DATABASE in state for state in states} == {True, False}
    assert {LOG in state_after([records[0], records[2]], 2, random.Random(seed)) for seed in range(50)} == {True, False}
