"""A connected gRPC worker: an executor whose items go out on a stream."""

import asyncio
from dataclasses import dataclass

from durabletask_sql.ports.work import ActivityItem, EntityItem, Profile, TurnItem
from durabletask_sql.protocol.assembly import (
    HEAD_BYTES,
    activity_request,
    activity_work_item,
    entity_request,
    entity_work_item,
    health_ping,
    orchestrator_request,
    turn_work_item,
)
from durabletask_sql.protocol.framing import keep_kinds

_PING = health_ping()
# A longer history is fetched by those workers that can.
STREAMED_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class WorkerSlots:
    """How many items of each kind a worker may hold at once."""

    turns: int
    activities: int
    entities: int


class ConnectedWorker:
    """Implements `ports.work.Executor` over a queue of serialized work items; None in it ends the stream."""

    def __init__(self, name: str, profile: Profile, slots: WorkerSlots, known_events: frozenset[int] | None) -> None:
        """`name` is the worker's user agent or id; `known_events` the kinds that it can be sent (None: all)."""
        self._name = name
        self._profile = profile
        self._slots = slots
        self._known_events = known_events
        self._items: asyncio.Queue[bytes | None] = asyncio.Queue()

    @property
    def name(self) -> str:
        """What logs call it."""
        return self._name

    @property
    def profile(self) -> Profile:
        """What it takes."""
        return self._profile

    @property
    def turn_slots(self) -> int:
        """How many turns it may hold at once."""
        return self._slots.turns

    @property
    def activity_slots(self) -> int:
        """How many activity tasks it may hold at once."""
        return self._slots.activities

    @property
    def entity_slots(self) -> int:
        """How many batches of entities it may hold at once."""
        return self._slots.entities

    def offer_turn(self, item: TurnItem) -> None:
        """Send a turn."""
        past, new_events = item.past, item.new_events
        if self._known_events is not None:
            past = tuple(keep_kinds(part, self._known_events) for part in past)
            new_events = keep_kinds(new_events, self._known_events)
        streamed = self._profile.streams_history and self._is_long(past, new_events)
        request = orchestrator_request(item.key.instance_id, item.execution_id, None if streamed else past, new_events,
                                       item.trace)
        self._items.put_nowait(turn_work_item(item.token, request))

    def _is_long(self, past: tuple[bytes, ...], new_events: bytes) -> bool:
        size, limit = sum(map(len, past)), self._profile.message_bytes
        return size > STREAMED_BYTES or (limit is not None and size + len(new_events) + HEAD_BYTES > limit)

    def offer_activity(self, item: ActivityItem) -> None:
        """Send an activity task."""
        row = item.row
        request = activity_request(row.key.instance_id, row.execution_id, row.event)
        self._items.put_nowait(activity_work_item(item.token, request))

    def offer_entity(self, item: EntityItem) -> None:
        """Send a batch of an entity."""
        request = entity_request(item.key.instance_id, item.execution_id, item.state, item.operations)
        self._items.put_nowait(entity_work_item(item.token, request))

    async def next(self) -> bytes | None:
        """Return the next item; None when the stream should end."""
        return await self._items.get()

    def ping(self) -> None:
        """Say on the stream that it is alive: some SDKs give up one that is silent for two minutes."""
        self._items.put_nowait(_PING)

    def end(self) -> None:
        """End the stream after what is queued."""
        self._items.put_nowait(None)
