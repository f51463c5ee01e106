"""Where the server listens when it is not told, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import socket

import grpc.aio
import pytest

from durabletask_sql.errors import SettingsError
from durabletask_sql.settings import Listen
from durabletask_sql.sidecar.binding import bind


def bound(listen: Listen) -> tuple[str, ...]:
    async def run() -> tuple[str, ...]:
        server = grpc.aio.server()
        try:
            return bind(server, listen)
        finally:
            await server.stop(0)

    return asyncio.run(run())


def test_both_loopback_addresses_get_the_same_port():
    four, six = bound(Listen(port=0))
    assert four.startswith("127.0.0.1:")
    assert six == f"[::1]:{four.rpartition(':')[2]}"


@pytest.mark.parametrize(("taken", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_a_port_that_is_taken_on_one_of_them_is_refused(taken, shown):
    """Else clients that resolve localhost to the other address would talk to a stranger."""
    family = socket.AF_INET6 if ":" in taken else socket.AF_INET
    with socket.create_server((taken, 0), family=family) as other:
        port = other.getsockname()[1]
        with pytest.raises(SettingsError, match=f"cannot listen on {shown.replace('[', '.').replace(']', '.')}:{port}: the port"):
            bound(Listen(port=port))


def test_a_name_is_bound_on_the_addresses_that_it_has_here():
    assert bound(Listen("localhost", 0, explicit=True))[0].startswith("localhost:")
