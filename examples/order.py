"""An order: steps in sequence, one that is retried, and what was done is undone when a step fails for good.

    durabletask-sql serve &
    python examples/order.py [ADDRESS]
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from datetime import timedelta
from typing import Any

from durabletask import client, task, worker

PATIENTLY = task.RetryPolicy(first_retry_interval=timedelta(milliseconds=200), max_number_of_attempts=3)


def reserve(_: task.ActivityContext, order: dict[str, Any]) -> str:
    """Reserve the goods."""
    return f"reservation of {order['item']}"


def charge(_: task.ActivityContext, order: dict[str, Any]) -> str:
    """Charge the customer. An activity may run more than once: a real one passes the order's id as idempotency key."""
    if order["card"] == "expired":
        message = "the card has expired"
        raise ValueError(message)
    return f"receipt for {order['item']}"


def release(_: task.ActivityContext, reservation: str) -> str:
    """Undo a reservation."""
    return f"released the {reservation}"


def order(ctx: task.OrchestrationContext, placed: dict[str, Any]) -> Generator[task.Task[Any], Any, str]:
    """Reserve and charge; release the reservation when the customer cannot be charged."""
    reservation = yield ctx.call_activity(reserve, input=placed)
    try:
        receipt: str = yield ctx.call_activity(charge, input=placed, retry_policy=PATIENTLY)
    except task.TaskFailedError:
        undone: str = yield ctx.call_activity(release, input=reservation)
        return undone
    return receipt


def main(address: str) -> None:
    """Place two orders."""
    with worker.TaskHubGrpcWorker(host_address=address) as w, client.TaskHubGrpcClient(host_address=address) as c:
        w.add_orchestrator(order)
        for activity in (reserve, charge, release):
            w.add_activity(activity)
        w.start()
        for placed in ({"item": "a book", "card": "valid"}, {"item": "a lamp", "card": "expired"}):
            instance_id = c.schedule_new_orchestration(order, input=placed)
            state = c.wait_for_orchestration_completion(instance_id, timeout=60)
            assert state is not None
            print(f"{placed['item']}: {state.get_output()}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "localhost:4001")
