"""A client without a worker: it starts, watches and ends orchestrations that somebody else's workers run.

    durabletask-sql serve &
    python examples/client_only.py [ADDRESS]
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

from durabletask import client


def main(address: str) -> None:
    """Plan two backups for tomorrow, look at them, and change our mind."""
    with client.TaskHubGrpcClient(host_address=address) as c:
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        for name in ("photos", "letters"):
            c.schedule_new_orchestration("backup", input=name, instance_id=f"backup-{name}", start_at=tomorrow,
                                         tags={"kind": "backup"})
        query = client.OrchestrationQuery(runtime_status=[client.OrchestrationStatus.PENDING], instance_id_prefix="backup-")
        for state in c.get_all_orchestration_states(query):
            print(f"{state.instance_id} is {state.runtime_status.name}")
        for name in ("photos", "letters"):
            c.terminate_orchestration(f"backup-{name}", output="not needed")
            ended = c.wait_for_orchestration_completion(f"backup-{name}", timeout=60)
            assert ended is not None
            print(f"{ended.instance_id} is {ended.runtime_status.name}: {ended.get_output()}")
            c.purge_orchestration(ended.instance_id)
        print(f"left: {len(c.get_all_orchestration_states(query))}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "localhost:4001")
