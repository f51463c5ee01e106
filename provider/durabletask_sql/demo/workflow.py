"""The sample work: an order with a sequence, a fan-out of a hundred, a timer, an event and a child with a retry."""

import time
from collections.abc import Generator
from datetime import timedelta
from typing import Any

from durabletask import task

FAN_OUT = 100
Steps = Generator[task.Task[Any], Any, dict[str, Any]]


def reserve(_: task.ActivityContext, order: str) -> str:
    """Reserve the goods."""
    return f"reservation of {order}"


def pick(_: task.ActivityContext, item: int) -> int:
    """Pick one item; a moment of work, so that there is something to interrupt."""
    time.sleep(0.05)
    return item


def charge(_: task.ActivityContext, attempt_key: str) -> str:
    """Charge the customer; the payment service refuses every second order's first try."""
    key, _, attempt = attempt_key.rpartition("#")
    if attempt == "1" and hash_of(key) % 2:
        message = "the payment service is busy"
        raise RuntimeError(message)
    return f"charged {key}"


def hash_of(text: str) -> int:
    """Return a number that is the same in every process."""
    return sum(text.encode())


def payment(ctx: task.OrchestrationContext, order: str) -> Generator[task.Task[Any], Any, str]:
    """Charge with a retry, as a sub-orchestration."""
    for attempt in ("1", "2", "3"):
        try:
            receipt: str = yield ctx.call_activity(charge, input=f"{order}#{attempt}")
        except task.TaskFailedError:
            yield ctx.create_timer(timedelta(milliseconds=200))
        else:
            return receipt
    message = f"{order} could not be charged"
    raise RuntimeError(message)


def order_workflow(ctx: task.OrchestrationContext, order: str) -> Steps:
    """Reserve, pick a hundred items at once, let it rest, wait for the shipping note, charge."""
    reservation = yield ctx.call_activity(reserve, input=order)
    picked = yield task.when_all([ctx.call_activity(pick, input=item) for item in range(FAN_OUT)])
    yield ctx.create_timer(timedelta(milliseconds=500))
    note = yield ctx.wait_for_external_event("shipping note")
    paid = yield ctx.call_sub_orchestrator(payment, input=order)
    return {"reservation": reservation, "picked": sum(picked), "note": note, "paid": paid}
