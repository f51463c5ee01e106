"""Something that goes on for ever: each round continues as new, so that the history stays short.

    durabletask-sql serve &
    python examples/periodic.py [ADDRESS]
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from datetime import timedelta
from typing import Any

from durabletask import client, task, worker

PERIOD = timedelta(milliseconds=100)
ROUNDS = 5


def clean_up(_: task.ActivityContext, number: int) -> str:
    """Do what is due."""
    return f"round {number} done"


def periodic(ctx: task.OrchestrationContext, number: int) -> Generator[task.Task[Any], Any, str | None]:
    """Clean up, rest until the next round or until somebody says stop, and begin anew."""
    ctx.set_custom_status((yield ctx.call_activity(clean_up, input=number)))
    stop = ctx.wait_for_external_event("stop")
    if (yield task.when_any([stop, ctx.create_timer(PERIOD)])) is stop:
        return f"stopped after {number} rounds"
    ctx.continue_as_new(number + 1, save_events=True)  # a stop that comes just now is kept for the next round
    return None


def main(address: str) -> None:
    """Let it go some rounds, then stop it."""
    with worker.TaskHubGrpcWorker(host_address=address) as w, client.TaskHubGrpcClient(host_address=address) as c:
        w.add_orchestrator(periodic)
        w.add_activity(clean_up)
        w.start()
        instance_id = c.schedule_new_orchestration(periodic, input=1)
        seen = 0
        while seen < ROUNDS:
            state = c.get_orchestration_state(instance_id)
            assert state is not None
            status = state.get_custom_status()
            number = int(status.split()[1]) if status else 0
            if number > seen:  # by more than one when a round came and went between two looks
                print(status)
                seen = number
        c.raise_orchestration_event(instance_id, "stop")
        state = c.wait_for_orchestration_completion(instance_id, timeout=60)
        assert state is not None
        print("stopped" if state.runtime_status is client.OrchestrationStatus.COMPLETED else state)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "localhost:4001")
