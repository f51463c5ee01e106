"""Fan out and in: one activity for each text, all at once, and the results put together when all are there.

    durabletask-sql serve &
    python examples/fan_out.py [ADDRESS]
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Generator
from typing import Any

from durabletask import client, task, worker

TEXTS = ["the quick brown fox", "jumps over the lazy dog", "the dog barks", "and the fox is gone"]


def count_words(_: task.ActivityContext, text: str) -> dict[str, int]:
    """Count the words of one text."""
    return Counter(text.split())


def most_common(ctx: task.OrchestrationContext, texts: list[str]) -> Generator[task.Task[Any], Any, list[str]]:
    """Return the three most common words of all texts."""
    counts = yield task.when_all([ctx.call_activity(count_words, input=text) for text in texts])
    total = sum((Counter(count) for count in counts), Counter[str]())
    return [word for word, _ in sorted(total.items(), key=lambda pair: (-pair[1], pair[0]))[:3]]


def main(address: str) -> None:
    """Count once."""
    with worker.TaskHubGrpcWorker(host_address=address) as w, client.TaskHubGrpcClient(host_address=address) as c:
        w.add_orchestrator(most_common)
        w.add_activity(count_words)
        w.start()
        instance_id = c.schedule_new_orchestration(most_common, input=TEXTS)
        state = c.wait_for_orchestration_completion(instance_id, timeout=60)
        assert state is not None
        print(f"most common: {', '.join(state.get_output())}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "localhost:4001")
