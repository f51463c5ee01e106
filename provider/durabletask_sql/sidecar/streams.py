"""The RPCs that stream: work items to workers, histories to clients."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping

import grpc

from durabletask_sql.errors import DurableTaskSqlError
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.assembly import history_chunk
from durabletask_sql.protocol.framing import split_frames
from durabletask_sql.sidecar.agents import entity_slots, known_events, profile_of
from durabletask_sql.sidecar.calls import Call, Context, ServedHub, parse
from durabletask_sql.sidecar.errors import status_of
from durabletask_sql.sidecar.workers import ConnectedWorker, WorkerSlots

_log = logging.getLogger(__name__)

CHUNK_BYTES = 1024 * 1024


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
        slots = WorkerSlots(request.maxConcurrentOrchestrationWorkItems or self._default_slots,
                            request.maxConcurrentActivityWorkItems or self._default_slots,
                            entity_slots(call.agents, request, self._default_slots))
        worker = ConnectedWorker(name, profile_of(call.agents, request), slots, known_events(call.agents))
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
            call.board.disconnect(worker, lost=not self._closing)
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
            async for events in self._history(call, request):
                yield history_chunk(events)
        except DurableTaskSqlError as error:
            code, text = status_of(error)
        except Exception as error:
            _log.exception("StreamInstanceHistory failed by a bug")
            code, text = status_of(error)
        else:
            return
        await context.abort(code, text)

    async def _history(self, call: Call, request: pb.StreamInstanceHistoryRequest) -> AsyncIterator[bytes]:
        """Yield the history that a work item was made from, or the committed one, in pieces that any client reads."""
        execution_id = request.executionId.value or None
        if request.forWorkItemProcessing:
            past = call.board.past_of_turn(request.instanceId, execution_id)
            if past is not None:
                for piece in split_frames(past, CHUNK_BYTES):
                    yield piece
                return
        async for page in call.service.history(request.instanceId, execution_id):
            for piece in split_frames((page,), CHUNK_BYTES):
                yield piece
