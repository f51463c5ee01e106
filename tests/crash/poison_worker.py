"""The worker process of the poison tests: `python poison_worker.py ADDRESS SERVER_PID`, until standard input ends.

What one of its activities is told may kill the worker, or the server.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time

from durabletask.worker import ConcurrencyOptions, TaskHubGrpcWorker

KILL_WORKER, KILL_SERVER = "kill the worker", "kill the server"
_SECONDS = 0.01


def do_it(_, word):
    if word == KILL_WORKER:
        os.kill(os.getpid(), signal.SIGKILL)
    if word == KILL_SERVER:
        os.kill(int(sys.argv[2]), signal.SIGKILL)
    time.sleep(_SECONDS)  # work that takes a while, so that a kill meets some of it
    return word


def flow(ctx, word):
    return (yield ctx.call_activity(do_it, input=word))


def main() -> None:
    logger = logging.Logger("poison test")
    logger.addHandler(logging.NullHandler())
    worker = TaskHubGrpcWorker(host_address=sys.argv[1], logger=logger, concurrency_options=ConcurrencyOptions(
        maximum_concurrent_activity_work_items=20, maximum_thread_pool_workers=20))
    worker.add_orchestrator(flow)
    worker.add_activity(do_it)
    worker.start()
    sys.stdin.read()
    worker.stop()


if __name__ == "__main__":
    main()
