"""The RPCs that stream: work items to workers, histories to clients."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping

import grpc

from durabletask_sql.errors import DurableTaskSqlError
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.assembly import history_chunk
from durabletask_sql.sidecar.calls import Call, Context, ServedHub, parse
from durabletask_sql.sidecar.errors import status_of
from durabletask_sql.sidecar.workers import ConnectedWorker

_log = logging.getLogger(__name__)


class Streams:
    """The connected workers of this server, and the two streaming methods."""

    def __init__(self, hubs: Mapping[str, ServedHub], *, ping_seconds: float, default_slots: int) -> None:
        """`default_slots` holds for workers that give no limit of their own."""
        self._hubs = hubs
        self._ping_seconds = ping_seconds
        self._default_slots = default_slots
        self._workers: set[ConnectedWorker] = set()
        self._closing = False

    def close(self) -> None:
        """End all workers' streams, and take no new ones: the server stops."""
        self._closing = True
        for worker in self._workers:
            worker.end()

    async def get_work_items(self, data: bytes, context: Context) -> AsyncIterator[bytes]:
        """Send work to a worker for as long as it listens; what it has when it leaves goes back at once."""
        try:
            call = Call(self._hubs, context)
            request = parse(pb.GetWorkItemsRequest, data)
        except DurableTaskSqlError as error:
            await context.abort(*status_of(error))
        name = call.worker  # not to be asked for later: gRPC's context is gone when the stream has ended
        worker = ConnectedWorker(
            call.board, f"{name} {call.agents}",
            request.maxConcurrentOrchestrationWorkItems or self._default_slots,
            request.maxConcurrentActivityWorkItems or self._default_slots)
        _log.info("worker connected: %s", name)
        self._workers.add(worker)
        call.board.connect(worker)
        pings = asyncio.create_task(self._ping(worker))
        try:
            while (item := await worker.next()) is not None:
                yield item
        finally:
            pings.cancel()
            self._workers.discard(worker)
            call.board.disconnect(worker)
            _log.info("worker disconnected: %s", name)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")

    async def _ping(self, worker: ConnectedWorker) -> None:
        while True:
            await asyncio.sleep(self._ping_seconds)
            worker.ping()

    async def stream_instance_history(self, data: bytes, context: Context) -> AsyncIterator[bytes]:
        """Send the committed history of an instance, a page a message."""
        try:
            call = Call(self._hubs, context)
            request = parse(pb.StreamInstanceHistoryRequest, data)
            execution_id = request.executionId.value or None
            async for page in call.service.history(request.instanceId, execution_id):
                yield history_chunk(page)
        except DurableTaskSqlError as error:
            code, text = status_of(error)
        except Exception as error:
            _log.exception("StreamInstanceHistory failed by a bug")
            code, text = status_of(error)
        else:
            return
        await context.abort(code, text)
