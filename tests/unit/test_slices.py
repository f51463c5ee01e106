"""The server's threads ask for short slices of the processor, and for nothing else."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from durabletask_sql.cli.slices import SLICE_NANOSECONDS
from server import ServerProcess

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="slices can be asked for on Linux"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the test knows this machine's number of sched_getattr"),
]
_SCHED_GETATTR = 315


def slice_of(thread: int) -> int | None:
    """Return the slice of a thread in nanoseconds; 0 where the kernel has none to tell of, None when the thread has ended."""
    data = ctypes.create_string_buffer(48)
    if ctypes.CDLL(None).syscall(_SCHED_GETATTR, thread, data, 48, 0):
        return None
    return int(struct.unpack_from("=Q", data.raw, 24)[0])


needs_slices = pytest.mark.skipif(not (sys.platform == "linux" and platform.machine() == "x86_64" and slice_of(0)),
                                  reason="this kernel is older than 6.12")


@needs_slices
def test_all_threads_of_a_server_have_short_slices(tmp_path: Path) -> None:
    server = ServerProcess(f"sqlite:///{tmp_path / 'hub.db'}", tmp_path / "log").start()
    try:
        found = [slice_of(int(entry.name)) for entry in Path(f"/proc/{server.pid}/task").iterdir()]
        slices = [length for length in found if length is not None]
        assert len(slices) > 3
        assert set(slices) == {SLICE_NANOSECONDS}
    finally:
        server.stop()


@pytest.mark.parametrize("policy", ["SCHED_OTHER", "SCHED_BATCH"])
def test_niceness_and_a_policy_that_was_chosen_stay(policy: str) -> None:
    program = f"""
import os
from durabletask_sql.cli.slices import shorten_slices
os.nice(5)
os.sched_setscheduler(0, os.{policy}, os.sched_param(0))
print(shorten_slices(), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0))
"""
    before = os.nice(0)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [str(policy == "SCHED_OTHER"), str(before + 5), str(getattr(os, policy))]
