"""Poison of eight kinds that neither abandons nor ends its worker, among healthy items, as `benchmarks/poison.py` mixes it.

The server is a process of its own, whose delays between attempts are short; answers come over gRPC from a process too.
"""

from __future__ import annotations

import asyncio
import sys

from benchmarks.poison import bench, healthy, mixed, poison
from benchmarks.poisoned import KINDS

HEALTHY, POISON = 300, 32
SHORT_DELAYS = "from durabletask_sql.dispatch import delays; delays.delay_seconds = lambda times: 0.1"
HASTY = (sys.executable, "-c", f"{SHORT_DELAYS}; from durabletask_sql.cli import main; raise SystemExit(main())")


def test_all_poison_is_set_aside_and_nothing_else_and_all_of_it_completes_once_the_worker_is_mended(database_url, tmp_path):
    assert len(KINDS) == 8
    bad = poison(POISON)

    async def run(ready):
        await ready.measure(mixed(healthy(HEALTHY), bad))
        await ready.check(bad)

    with bench(database_url, tmp_path, HASTY) as ready:
        asyncio.run(run(ready))
