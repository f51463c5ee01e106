"""Calls of every RPC, from several connections at once, and workers that answer real work items with anything."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from contextlib import suppress

import grpc
import grpc.aio

from durabletask_sql.protocol import taskhub_pb2 as pb
from fuzz.messages import Fuzz, kind_of

SERVICE = pb.DESCRIPTOR.services_by_name["TaskHubSidecarService"]
STREAMS = frozenset({"GetWorkItems", "StreamInstanceHistory"})
WAITS = frozenset({"WaitForInstanceStart", "WaitForInstanceCompletion"})
WORK = {"orchestratorRequest": ("CompleteOrchestratorTask", "AbandonTaskOrchestratorWorkItem"),
        "activityRequest": ("CompleteActivityTask", "AbandonTaskActivityWorkItem"),
        "entityRequestV2": ("CompleteEntityTask", "AbandonTaskEntityWorkItem")}

# What a server may say of a call that is not as it should be; everything else would be a failure of its own.
DELIBERATE = frozenset({
    grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.PERMISSION_DENIED})
_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1))
_WAIT_SECONDS, _CALL_SECONDS = 0.02, 60.0
_AT_ONCE = 16
_LARGE = 40 * 1024 * 1024


class Attack:
    """So many calls in all, from `connections` connections, on the hubs named; counts what the server says."""

    def __init__(self, address: str, seed: int, calls: int, connections: int = 4) -> None:
        self._address = address
        self._seed = seed
        self._numbers = itertools.repeat(None, calls)
        self._connections = connections
        self.said: Counter[tuple[str, grpc.StatusCode]] = Counter()
        self.wrong: list[str] = []

    async def run(self) -> None:
        """Make all calls."""
        await asyncio.gather(*(self._connection(self._seed * 1_000 + number) for number in range(self._connections)))

    async def _connection(self, seed: int) -> None:
        async with grpc.aio.insecure_channel(self._address, options=_OPTIONS) as channel:
            fuzz = Fuzz(seed)
            worker = asyncio.create_task(self._work(channel, fuzz))
            await asyncio.gather(*(self._call_on(channel, fuzz) for _ in range(_AT_ONCE)))
            worker.cancel()
            with suppress(asyncio.CancelledError):
                await worker

    async def _call_on(self, channel: grpc.aio.Channel, fuzz: Fuzz) -> None:
        for _ in self._numbers:
            method = fuzz.random.choice(SERVICE.methods)
            data = fuzz.request(kind_of(method.input_type))
            if method.name == "StartInstance" and fuzz.random.random() < 0.0005:
                data = pb.CreateInstanceRequest(name="large", input={"value": "x" * _LARGE}).SerializeToString()
            hub = "nowhere" if fuzz.random.random() < 0.01 else "fuzz"
            await self._call(channel, fuzz, method.name, data, hub)

    async def _call(self, channel: grpc.aio.Channel, fuzz: Fuzz, name: str, data: bytes, hub: str = "fuzz") -> None:
        path, metadata = f"/{SERVICE.name}/{name}", (("taskhub", hub),)
        seconds = _WAIT_SECONDS if name in WAITS or name in STREAMS else _CALL_SECONDS
        try:
            if name in STREAMS:
                async for chunk in channel.unary_stream(path)(data, timeout=seconds, metadata=metadata):
                    if name == "GetWorkItems":
                        fuzz.remember(pb.WorkItem.FromString(chunk).completionToken)
            else:
                answer = await channel.unary_unary(path)(data, timeout=seconds, metadata=metadata)
                if name == "StartInstance":
                    fuzz.remember(pb.CreateInstanceResponse.FromString(answer).instanceId)
            code, details = grpc.StatusCode.OK, ""
        except grpc.aio.AioRpcError as error:
            code, details = error.code(), error.details() or ""
        self.said[name, code] += 1
        timely = code is grpc.StatusCode.DEADLINE_EXCEEDED and seconds == _WAIT_SECONDS
        if code not in DELIBERATE and not timely and len(self.wrong) < 20:
            self.wrong.append(f"{name} -> {code.name}: {details[:200]} (request {data[:200].hex()})")

    async def _work(self, channel: grpc.aio.Channel, fuzz: Fuzz) -> None:
        """Be a worker that answers what it is given with anything."""
        while True:
            with suppress(grpc.aio.AioRpcError):
                request = pb.GetWorkItemsRequest(maxConcurrentOrchestrationWorkItems=fuzz.random.choice((0, 1, 50)))
                stream = channel.unary_stream(f"/{SERVICE.name}/GetWorkItems")(
                    request.SerializeToString(), timeout=fuzz.random.uniform(0.5, 5), metadata=(("taskhub", "fuzz"),))
                async for chunk in stream:
                    await self._answer(channel, fuzz, pb.WorkItem.FromString(chunk))

    async def _answer(self, channel: grpc.aio.Channel, fuzz: Fuzz, item: pb.WorkItem) -> None:
        form = item.WhichOneof("request") or ""
        if form not in WORK:
            return
        fuzz.remember(item.completionToken)
        if form == "activityRequest":
            fuzz.remember(item.activityRequest.orchestrationInstance.instanceId)
        else:
            fuzz.remember(getattr(item, form).instanceId)
        for name in fuzz.random.choices(WORK[form], (9, 1), k=fuzz.random.choice((0, 1, 1, 1, 2))):
            answer = fuzz.message(kind_of(SERVICE.methods_by_name[name].input_type))
            answer.completionToken = item.completionToken
            if hasattr(answer, "instanceId"):
                answer.instanceId = getattr(item, form).instanceId if form == "orchestratorRequest" else ""
            await self._call(channel, fuzz, name, answer.SerializeToString())
