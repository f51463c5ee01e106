"""What the benchmarks read off the machine: processor time of processes, the cost of a sync."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable
from pathlib import Path

import psycopg

_TICKS = os.sysconf("SC_CLK_TCK")
_PAUSE_SECONDS = 0.003


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the processor time, user and system, that processes have used; those that are gone count nothing."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def backends(maintenance_url: str) -> list[int]:
    """Return the processes of a PostgreSQL on this machine: back ends, writers, checkpointer."""
    with psycopg.connect(maintenance_url) as connection:
        found = [row[0] for row in connection.execute("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")]
    return [pid for pid in found if _is_postgres(pid)]


def _is_postgres(pid: int) -> bool:
    try:
        return "postgres" in Path(f"/proc/{pid}/comm").read_text()
    except FileNotFoundError:
        return False  # a server on another machine


def sync_milliseconds(folder: Path) -> float:
    """Return what one fdatasync of a small append costs in a folder, among others that come at the pace of commits.

    One right behind the other is cheaper: the disk, or what plays it, has not gone to sleep.
    """
    times = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(200):
            time.sleep(_PAUSE_SECONDS)
            file.write(b"x" * 4096)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3
