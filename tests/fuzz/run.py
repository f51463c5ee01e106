"""Attack a server while real work runs beside it: `python tests/fuzz/run.py --calls 1000000 [--seed N] [--database URL]`.

The attack goes to one task hub, the work of the unmodified SDK to another of the same server. Exits with 1 when a call
got a status that is not deliberate, when the real work did not complete, or when the server's log tells of a bug.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from durabletask.client import OrchestrationStatus

from fuzz.attack import Attack
from hubs import Hub
from server import ServerProcess

_BATCH = 20


def do_double(_, number):
    return 2 * number


def child(ctx, number):
    return (yield ctx.call_activity(do_double, input=number))


def real(ctx, number):
    first = yield ctx.call_activity(do_double, input=number)
    return (yield ctx.call_sub_orchestrator(child, input=first))


def work_until(hub: Hub, attack: asyncio.Task[None]) -> int:
    """Run real orchestrations until the attack is over; return how many. Raises when one is wrong or late."""
    done = 0
    with hub.worker(do_double, child, real), hub.client() as client:
        while not attack.done():
            ids = [client.schedule_new_orchestration(real, input=number) for number in range(_BATCH)]
            for number, instance_id in enumerate(ids):
                state = client.wait_for_orchestration_completion(instance_id, timeout=120)
                assert state is not None, instance_id
                assert state.runtime_status is OrchestrationStatus.COMPLETED, state
                assert state.serialized_output == str(4 * number)
            done += len(ids)
    return done


async def attack_beside_work(address: str, server: ServerProcess, *, seed: int, calls: int) -> tuple[Attack, int]:
    """Attack, and work beside it; return the attack and how much real work was done."""
    attack = Attack(address, seed, calls)
    running = asyncio.create_task(attack.run())
    done = await asyncio.to_thread(work_until, Hub(server, "real"), running)
    await running
    return attack, done


def bugs_in(log: Path) -> list[str]:
    """Return the entries of a server's log that tell of a bug in it, with their tracebacks."""
    entries = re.split(r"\n(?=\d{4}-\d\d-\d\d )", log.read_text())
    return [entry for entry in entries if "by a bug" in entry or "Traceback" in entry]


def main() -> int:
    """Attack as the options say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--database", metavar="URL", help="default: a fresh SQLite file")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # of the SDK's worker and client in this process
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        database = options.database or f"sqlite:///{folder}/fuzz.db"
        server = ServerProcess(database, log, "--task-hub", "fuzz", "--task-hub", "real").start()
        attack, done = asyncio.run(attack_beside_work(server.address, server, seed=options.seed, calls=options.calls))
        code, bugs = server.stop(), bugs_in(log)
    codes: Counter[str] = Counter()
    for (_, status), count in attack.said.items():
        codes[status.name] += count
    sys.stdout.write(f"seed {options.seed}: {sum(codes.values())} calls, {done} real orchestrations; {dict(codes)}\n")
    for line in (*attack.wrong, *bugs[:20]):
        sys.stdout.write(f"{line}\n")
    return 1 if attack.wrong or bugs or code else 0


if __name__ == "__main__":
    sys.exit(main())
