"""No message takes the server down, and none disturbs the work of others: 100,000 calls on the two databases together.

DURABLETASK_SQL_FUZZ_CALLS sets how many on each, DURABLETASK_SQL_SEED which. `python tests/fuzz/run.py` is the same as a
command, for a million.
"""

from __future__ import annotations

import asyncio
import os

from checker import check_hub
from fuzz.run import attack_beside_work, bugs_in
from server import ServerProcess

CALLS = int(os.environ.get("DURABLETASK_SQL_FUZZ_CALLS", "50000"))
SEED = int(os.environ.get("DURABLETASK_SQL_SEED", "1"))


def test_every_call_gets_a_deliberate_status_while_real_work_completes(database_url, tmp_path):
    log = tmp_path / "server.log"
    server = ServerProcess(database_url, log, "--task-hub", "fuzz", "--task-hub", "real").start()
    attack, done = asyncio.run(attack_beside_work(server.address, server, seed=SEED, calls=CALLS))
    assert server.stop() == 0
    assert attack.wrong == []
    assert done > 0
    assert sum(attack.said.values()) >= CALLS
    assert bugs_in(log) == []
    # Nobody serves the attacked hub any more: messages may wait there for entities.
    assert [problem for problem in check_hub(database_url) if not problem.endswith("a message is left over")] == []
