"""Four processes on one SQLite file: how long each waits for its turn to write, and how long the log gets.

    python benchmarks/one_file.py [--minutes 1] [--writers 4] [--readers 2] [--json FILE]

Each writer is a process that commits as a host does (its session, durable, 1 to 16 rows of 2 KB, and a load that need
not be synced between), each reader one that pages through everything without a pause.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measures import sync_milliseconds

from durabletask_sql.ids import new_claim_token
from durabletask_sql.storage import wal
from durabletask_sql.storage.dialect import SqliteCompiler
from durabletask_sql.storage.sqlite import SqliteSession, connect

MEGABYTE = 1024 * 1024
PAGE = 200
KEPT = 200_000  # rows: the oldest go, so that a long run fits on a disk
LOOK_SECONDS = 0.01


def write(path: str, seconds: float) -> dict[str, float]:
    """Commit for so long; return how long the turns were waited for, and how long the transactions took."""
    session = SqliteSession(path, SqliteCompiler(), writer=True)
    until = time.monotonic() + seconds
    waits, works = list[float](), list[float]()
    while time.monotonic() < until:
        rows = 1 + new_claim_token() % 16
        for durable in (True, False):
            began = time.perf_counter()
            session.begin(durable=durable)
            got = time.perf_counter()
            if durable:
                session._connection.execute(  # noqa: SLF001 # statements of the benchmark's own table
                    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?) "
                    "INSERT INTO load (data) SELECT randomblob(2000) FROM n", (rows,))
            else:
                session._connection.execute(  # noqa: SLF001 # likewise
                    "DELETE FROM load WHERE seq < (SELECT max(seq) FROM load) - ?", (KEPT,))
            session.commit()
            waits.append(got - began)
            works.append(time.perf_counter() - got)
    session.close()
    found: dict[str, float] = {"commits": len(waits)}
    for name, times in (("wait", sorted(waits)), ("work", sorted(works))):
        found[f"{name}_p50_ms"] = 1e3 * times[len(times) // 2]
        found[f"{name}_p99_ms"] = 1e3 * times[len(times) * 99 // 100]
        found[f"{name}_max_ms"] = 1e3 * times[-1]
    return found



def read(path: str, seconds: float) -> dict[str, float]:
    """Page through everything, again and again, for so long."""
    connection, after, pages, longest = connect(path, writer=False), 0, 0, 0.0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.perf_counter()
        rows = connection.execute("SELECT seq, data FROM load WHERE seq > ? ORDER BY seq LIMIT ?", (after, PAGE)).fetchall()
        longest = max(longest, time.perf_counter() - began)
        after, pages = (rows[-1][0] if len(rows) == PAGE else 0), pages + 1
    connection.close()
    return {"pages": pages, "longest_ms": 1e3 * longest}


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--part", choices=("write", "read"), help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    options = parser.parse_args()
    seconds = 60 * options.minutes
    if options.part:
        print(json.dumps((write if options.part == "write" else read)(options.file, seconds)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        print(f"one fdatasync: {sync_milliseconds(Path(folder)):.2f} ms")
        path = str(Path(folder) / "one.db")
        creating = connect(path, writer=True)
        creating.execute("CREATE TABLE load (seq INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB)")
        creating.close()
        command = [sys.executable, __file__, "--minutes", str(options.minutes), "--file", path, "--part"]
        parts = [subprocess.Popen([*command, part], stdout=subprocess.PIPE, text=True)
                 for part in ["write"] * options.writers + ["read"] * options.readers]
        log, longest = wal.LogFile(path), 0
        while any(part.poll() is None for part in parts):
            time.sleep(LOOK_SECONDS)
            if Path(f"{path}-wal").exists():
                longest = max(longest, log.size())
        results = [json.loads(part.communicate()[0]) for part in parts]
    for kind, result in zip(["writer"] * options.writers + ["reader"] * options.readers, results, strict=True):
        print(kind, "  ".join(f"{name} {value:.1f}" for name, value in result.items()))
    print(f"longest write-ahead log: {longest / MEGABYTE:.1f} MB")
    if options.json:
        options.json.write_text(json.dumps({"parts": results, "log_megabytes": longest / MEGABYTE}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
