"""A task hub on a running server, with the unmodified SDK's worker and client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from durabletask.client import TaskHubGrpcClient
from durabletask.worker import ConcurrencyOptions, TaskHubGrpcWorker

from server import ServerProcess


@dataclass(frozen=True)
class Hub:
    """A task hub on a running server."""

    server: ServerProcess
    name: str | None = None

    @property
    def metadata(self) -> list[tuple[str, str]] | None:
        return [("taskhub", self.name)] if self.name is not None else None

    @contextmanager
    def client(self) -> Iterator[TaskHubGrpcClient]:
        client = TaskHubGrpcClient(host_address=self.server.address, metadata=self.metadata)
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def worker(self, *functions: Callable[..., object], concurrency: ConcurrencyOptions | None = None,
               filtered: bool = False) -> Iterator[TaskHubGrpcWorker]:
        """A worker; functions whose name begins with `do_` are activities, all others orchestrators.

        Classes are entities, and so are functions whose name ends with `_entity`. `filtered`: it asks for work by
        these names alone.
        """
        worker = TaskHubGrpcWorker(host_address=self.server.address, metadata=self.metadata,
                                   concurrency_options=concurrency)
        for function in functions:
            if isinstance(function, type) or function.__name__.endswith("_entity"):
                worker.add_entity(function)
            elif function.__name__.startswith("do_"):
                worker.add_activity(function)
            else:
                worker.add_orchestrator(function)
        if filtered:
            worker.use_work_item_filters()
        worker.start()
        try:
            yield worker
        finally:
            worker.stop()
