"""A connected gRPC worker: an executor whose items go out on a stream."""

import asyncio

from durabletask_sql.ports.work import ActivityItem, TurnItem, WorkBoard
from durabletask_sql.protocol.assembly import (
    activity_request,
    activity_work_item,
    health_ping,
    orchestrator_request,
    turn_work_item,
)

# What gRPC clients read in one message unless told otherwise, as all SDKs but JavaScript's leave it.
_MESSAGE_LIMIT = 4 * 1024 * 1024
_UNLIMITED_AGENT = "grpc-node-js"
_PING = health_ping()


class ConnectedWorker:
    """Implements `ports.work.Executor` over a queue of serialized work items; None in it ends the stream."""

    def __init__(self, board: WorkBoard, name: str, turn_slots: int, activity_slots: int) -> None:
        """`name` is the worker's user agent or id."""
        self._board = board
        self._name = name
        self._turn_slots = turn_slots
        self._activity_slots = activity_slots
        self._limit = None if _UNLIMITED_AGENT in name else _MESSAGE_LIMIT
        self._items: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._refusals: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """What logs call it."""
        return self._name

    @property
    def turn_slots(self) -> int:
        """How many turns it may hold at once."""
        return self._turn_slots

    @property
    def activity_slots(self) -> int:
        """How many activity tasks it may hold at once."""
        return self._activity_slots

    def offer_turn(self, item: TurnItem) -> None:
        """Send a turn, or give it back when the worker could not read it."""
        request = orchestrator_request(item.key.instance_id, item.execution_id, item.past, item.new_events, item.trace)
        message = turn_work_item(item.token, request)
        if self._fits(message):
            self._items.put_nowait(message)
        else:
            asyncio.get_running_loop().call_soon(self._board.refuse_turn, item.token, self._too_large(message))

    def offer_activity(self, item: ActivityItem) -> None:
        """Send an activity task, or fail it when the worker could not read it."""
        row = item.row
        message = activity_work_item(item.token, activity_request(row.key.instance_id, row.execution_id, row.event))
        if self._fits(message):
            self._items.put_nowait(message)
        else:
            task = asyncio.ensure_future(self._board.refuse_activity(item.token, self._too_large(message)))
            self._refusals.add(task)
            task.add_done_callback(self._refusals.discard)

    async def next(self) -> bytes | None:
        """Return the next item; None when the stream should end."""
        return await self._items.get()

    def ping(self) -> None:
        """Say on the stream that it is alive: some SDKs give up one that is silent for two minutes."""
        self._items.put_nowait(_PING)

    def end(self) -> None:
        """End the stream after what is queued."""
        self._items.put_nowait(None)

    def _fits(self, message: bytes) -> bool:
        return self._limit is None or len(message) <= self._limit

    def _too_large(self, message: bytes) -> str:
        return (f"the work item has {len(message)} bytes, and worker {self._name!r} reads at most {_MESSAGE_LIMIT} in one "
                "message: keep large data elsewhere and pass references, or continue as new to shorten the history")
