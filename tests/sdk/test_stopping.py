"""A server that stops under its workers and clients: what they are told, how soon it is gone, and that it is alive before."""

from __future__ import annotations

import asyncio
import sys

import grpc
import grpc.aio
import pytest
from durabletask.internal import orchestrator_service_pb2 as pb

from durabletask_sql.host import Host
from durabletask_sql.protocol import taskhub_pb2
from durabletask_sql.settings import Listen, Settings
from durabletask_sql.sidecar.server import Server
from e2e.test_serve import PATIENT
from server import ServerProcess
from wire import complete, connected


def code_of(call):
    """Return the status code that a call ends with."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.fixture
def own_server(database_url, tmp_path):
    """It would wait for work in progress longer than `stop` waits for it."""
    process = ServerProcess(database_url, tmp_path / "server.log", command=(sys.executable, "-c", PATIENT)).start()
    yield process
    process.kill()


def test_streams_and_waits_are_told_that_it_is_unavailable_and_the_port_is_free_at_once(own_server):
    """CANCELLED would make some workers give up for good, and clients take it for their own doing."""
    for _ in range(3):
        with connected(own_server, "default") as wire, wire.worker() as worker:
            request = pb.GetInstanceRequest(instanceId="nobody")
            waits = [wire.stub.WaitForInstanceStart.future(request), wire.stub.WaitForInstanceCompletion.future(request)]
            wire.start("here")
            worker.answer(worker.turn("here"), complete())
            assert own_server.stop() == 0
            assert [code_of(call) for call in (worker.next, waits[0].result, waits[1].result)] == [grpc.StatusCode.UNAVAILABLE] * 3
        own_server.start()


def test_a_silent_stream_gets_pings(tmp_path):
    """Workers of Python and .NET leave a stream that was silent for two minutes; here a ping is due every 50 ms."""
    async def run():
        settings = Settings(database=f"sqlite:///{tmp_path / 'hub.db'}", listen=Listen("127.0.0.1", 0, explicit=True),
                            ping_seconds=0.05)
        host = await Host.open(settings)
        server = Server(host.hubs, settings)
        (address,) = await server.start()
        await host.start()
        async with grpc.aio.insecure_channel(address) as channel:
            stream = channel.unary_stream("/TaskHubSidecarService/GetWorkItems")(b"")
            items = [taskhub_pb2.WorkItem.FromString(await stream.read()) for _ in range(3)]
            stream.cancel()
        await server.stop(0)
        await host.stop()
        return items

    items = asyncio.run(asyncio.wait_for(run(), 30))
    assert all(item.HasField("healthPing") for item in items)
    assert Settings().ping_seconds < 60
