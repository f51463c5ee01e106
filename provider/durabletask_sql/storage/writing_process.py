"""Which process has a write transaction open on a SQLite file, as far as the kernel tells: Linux lists all locks.

SQLite itself does not tell. Its files are not opened for it: closing one would give up all locks of this process on it.
"""

import os
from pathlib import Path

_LOCKS = Path("/proc/locks")
_WRITE_LOCK = 120  # the byte of the `-shm` file that a writer locks (SQLite's file format, "WAL-index locks")


def writing_process(path: str, locks: Path = _LOCKS) -> str:
    """Say for an operator who writes to a file: the process with its number and name, where that is known."""
    pid = _holder(path, locks)
    if pid is None:
        return "another process"
    try:
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:  # it is of another user, or has just ended
        return f"another process (pid {pid})"
    return f"another process (pid {pid}, {name!r})"


def _holder(path: str, locks: Path) -> int | None:
    """Return the process that has the write lock; None when the kernel does not say."""
    try:
        index = Path(f"{os.path.realpath(path)}-shm").stat()
        lines = locks.read_text().splitlines()
    except OSError:
        return None
    file = f"{os.major(index.st_dev):02x}:{os.minor(index.st_dev):02x}:{index.st_ino}"
    for line in lines:
        match line.split():
            case [_, "POSIX", "ADVISORY", "WRITE", pid, where, first, last] if (
                    where == file and int(first) <= _WRITE_LOCK and (last == "EOF" or int(last) >= _WRITE_LOCK)):
                return int(pid) if int(pid) > 0 else None  # not above 0: it is in another container
            case _:
                pass
    return None
