"""`python -m durabletask_sql.demo.worker ADDRESS[,ADDRESS...] [TASK-HUB]`: the demo's and the torture's worker process."""

import signal
import sys
import threading

from durabletask.worker import TaskHubGrpcWorker

from durabletask_sql.demo import shapes, workflow
from durabletask_sql.demo.processes import silent_logger


def main() -> None:
    """Work until SIGTERM, or until the process that started this one is gone."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    metadata = [("taskhub", name) for name in sys.argv[2:]] or None
    workers = [_worker(address, metadata) for address in sys.argv[1].split(",")]
    for worker in workers:
        worker.start()
    threading.Thread(target=_stop_at_end_of_input, args=(stopped,), daemon=True).start()
    stopped.wait()
    for worker in workers:
        worker.stop()


def _worker(address: str, metadata: list[tuple[str, str]] | None) -> TaskHubGrpcWorker:
    """Return a worker for one server: turns are run by the server that owns their partition, so each needs one."""
    worker = TaskHubGrpcWorker(host_address=address, metadata=metadata, logger=silent_logger())
    for orchestrator in (workflow.order_workflow, workflow.payment, *(one.function for one in shapes.SHAPES.values())):
        worker.add_orchestrator(orchestrator)
    for activity in (workflow.reserve, workflow.pick, workflow.charge, shapes.step):
        worker.add_activity(activity)
    worker.add_entity(shapes.Counter, name="counter")
    return worker


def _stop_at_end_of_input(stopped: threading.Event) -> None:
    sys.stdin.read()
    stopped.set()


if __name__ == "__main__":
    main()
