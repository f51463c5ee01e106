"""A person's approval, or a decision of its own when nobody answers in time. It may wait for days and over restarts.

    durabletask-sql serve &
    python examples/approval.py [ADDRESS]
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from datetime import timedelta
from typing import Any

from durabletask import client, task, worker


def expense(ctx: task.OrchestrationContext, seconds: float) -> Generator[task.Task[Any], Any, str]:
    """Wait so many seconds for somebody's decision."""
    ctx.set_custom_status("waiting for approval")
    decision = ctx.wait_for_external_event("decision")
    deadline = ctx.create_timer(timedelta(seconds=seconds))
    winner = yield task.when_any([decision, deadline])
    ctx.set_custom_status("decided")
    if winner is deadline:
        return "nobody answered: passed on to the next in line"
    return f"approved by {decision.get_result()}"


def main(address: str) -> None:
    """Ask twice; answer once."""
    with worker.TaskHubGrpcWorker(host_address=address) as w, client.TaskHubGrpcClient(host_address=address) as c:
        w.add_orchestrator(expense)
        w.start()
        answered = c.schedule_new_orchestration(expense, input=3600)
        forgotten = c.schedule_new_orchestration(expense, input=1)
        c.raise_orchestration_event(answered, "decision", data="Ada")  # kept, even if the wait has not begun
        for instance_id in (answered, forgotten):
            state = c.wait_for_orchestration_completion(instance_id, timeout=60)
            assert state is not None
            print(state.get_output())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "localhost:4001")
