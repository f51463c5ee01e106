"""The load of a torture: so many orchestrations in flight, started through the SDK on whatever server answers."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import grpc
from durabletask.client import TaskHubGrpcClient
from durabletask.internal.orchestrator_service_pb2 import OrchestrationIdReusePolicy

from durabletask_sql.demo.fleet import Fleet
from durabletask_sql.demo.processes import silent_logger
from durabletask_sql.demo.shapes import EVENT, SHAPES
from durabletask_sql.errors import UnavailableError
from durabletask_sql.ids import Dice, partition_of
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.instances import Instances

_FEEDERS = 8
_LOOK_SECONDS = 0.5
_RETRY_SECONDS = 0.2
_FINISH_SECONDS = 300.0
_CALL_SECONDS = 5.0
_NEVER_ANEW = OrchestrationIdReusePolicy()  # it names no status that may be replaced
_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED)


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class _Patience(grpc.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """Gives every call a deadline: a server that is stopped does not answer."""

    def intercept_unary_unary(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        """Make the call with a deadline."""
        return continuation(_Details(details.method, _CALL_SECONDS, details.metadata, details.credentials,
                                     details.wait_for_ready, details.compression), request)


class Load:
    """Keeps orchestrations in flight. `acknowledged` are those that a server has said to have."""

    def __init__(self, fleet: Fleet, instances: Instances, hub: TaskHub, in_flight: int, dice: Dice) -> None:
        """Take the parts."""
        self._fleet = fleet
        self._instances = instances
        self._hub = hub
        self._in_flight = in_flight
        self._dice = dice
        self._numbers: Counter[str] = Counter()
        self._room = asyncio.Semaphore(in_flight)
        self._closed = asyncio.Event()
        self._hurried = False
        self._clients = [TaskHubGrpcClient(host_address=address, metadata=[("taskhub", fleet.hub)], logger=silent_logger(),
                                            interceptors=[_Patience()]) for address in fleet.addresses]
        self._threads = ThreadPoolExecutor(_FEEDERS, thread_name_prefix="feeder")
        self.acknowledged: set[str] = set()
        self.open: set[str] = set()
        self.ended = 0

    async def run(self) -> None:
        """Start orchestrations whenever there is room, until `close`, or until cancelled."""
        feeders = [asyncio.ensure_future(self._feed()) for _ in range(_FEEDERS)]
        watch = asyncio.ensure_future(self._watch())
        try:
            done, _ = await asyncio.wait((watch, *feeders), return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            self._hurried = True
            for task in (watch, *feeders):
                task.cancel()
            await asyncio.gather(watch, *feeders, return_exceptions=True)

    def close(self) -> None:
        """Start nothing more; what is under way is carried through."""
        self._closed.set()
        for _ in range(_FEEDERS):
            self._room.release()

    async def finish(self) -> None:
        """Wait until everything that was acknowledged has ended, at most some minutes."""
        until = time.monotonic() + _FINISH_SECONDS
        while self.open and time.monotonic() < until:
            await self._look()
            await asyncio.sleep(_LOOK_SECONDS)

    def disconnect(self) -> None:
        """Give up what is under way, and the connections."""
        self._hurried = True
        self._threads.shutdown()
        for client in self._clients:
            client.close()

    async def _feed(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            if self._closed.is_set():
                return
            name = self._dice.choice(list(SHAPES))
            self._numbers[name] += 1
            number = self._numbers[name]
            first = self._dice.randrange(len(self._clients))
            if await loop.run_in_executor(self._threads, self._start, name, number, first):
                self.acknowledged.add(f"{name}-{number}")
                self.open.add(f"{name}-{number}")

    def _start(self, name: str, number: int, first: int) -> bool:
        """Start an orchestration, on the next server if one does not answer, and give it its event.

        A server that was stopped may carry out much later what it had been asked: when the orchestration has ended, that
        would make it anew, without an event to come.
        """
        instance_id = f"{name}-{number}"
        calls: list[Callable[[TaskHubGrpcClient], object]] = [
            lambda client: client.schedule_new_orchestration(name, input=number, instance_id=instance_id,
                                                             reuse_id_policy=_NEVER_ANEW)]
        if name == "listener":
            calls.append(lambda client: client.raise_orchestration_event(instance_id, EVENT, data=number))
        asked = first
        for call in calls:
            while not self._try(call, self._clients[asked % len(self._clients)]):
                if self._hurried:
                    return False
                asked += 1
                time.sleep(_RETRY_SECONDS)
        return True

    @staticmethod
    def _try(call: Callable[[TaskHubGrpcClient], object], client: TaskHubGrpcClient) -> bool:
        """Make a call; False when the server is away for a moment. What exists already was made by an earlier try."""
        try:
            call(client)
        except grpc.RpcError as error:
            if error.code() in _AGAIN:
                return False
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise
        return True

    async def _watch(self) -> None:
        while not self._closed.is_set():
            await asyncio.sleep(_LOOK_SECONDS)
            await self._look()

    async def _look(self) -> None:
        """Find out which have ended, from the database: the servers are not believed."""
        keys = [InstanceKey(partition_of(one, self._hub.partition_count), one) for one in self.open]
        try:
            statuses = await self._instances.statuses(keys)
        except UnavailableError:
            return  # the database is away, too, for a moment
        for key, status in statuses.items():
            if status.is_terminal and key.instance_id in self.open:
                self.open.discard(key.instance_id)
                self.ended += 1
                self._room.release()
