"""`python -m durabletask_sql.demo.worker ADDRESS`: the demo's worker process, until it is stopped."""

import signal
import sys
import threading

from durabletask.worker import TaskHubGrpcWorker

from durabletask_sql.demo import workflow
from durabletask_sql.demo.processes import silent_logger


def main() -> None:
    """Work until SIGTERM, or until the process that started this one is gone."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    worker = TaskHubGrpcWorker(host_address=sys.argv[1], logger=silent_logger())
    for orchestrator in (workflow.order_workflow, workflow.payment):
        worker.add_orchestrator(orchestrator)
    for activity in (workflow.reserve, workflow.pick, workflow.charge):
        worker.add_activity(activity)
    worker.start()
    threading.Thread(target=_stop_at_end_of_input, args=(stopped,), daemon=True).start()
    stopped.wait()
    worker.stop()


def _stop_at_end_of_input(stopped: threading.Event) -> None:
    sys.stdin.read()
    stopped.set()


if __name__ == "__main__":
    main()
