"""Which addresses the server listens on, and why it cannot, before gRPC tries: its own words name no cause."""

import errno
import logging
import socket

import grpc.aio

from durabletask_sql.errors import SettingsError
from durabletask_sql.settings import Listen

_log = logging.getLogger(__name__)

_LOOPBACK, _LOOPBACK_6 = "127.0.0.1", "::1"


def bind(server: grpc.aio.Server, listen: Listen) -> tuple[str, ...]:
    """Bind the addresses: what was asked for, or by default both loopbacks as far as the machine has them.

    Raises SettingsError when a port is taken, or an address is not this machine's.
    """
    if listen.explicit:
        return (_add(server, listen.host, listen.port),)
    first = _add(server, _LOOPBACK, listen.port)
    port = int(first.rpartition(":")[2])
    if not _is_here(_LOOPBACK_6):
        _log.info("this machine has no IPv6 loopback address: serving %s alone", first)
        return (first,)
    return first, _add(server, _LOOPBACK_6, port)


def _add(server: grpc.aio.Server, host: str, port: int) -> str:
    """Bind one address and return it with its port."""
    shown = f"[{host}]" if ":" in host else host
    _check(host, port, f"{shown}:{port}")
    try:
        return f"{shown}:{server.add_insecure_port(f'{shown}:{port}')}"
    except RuntimeError as error:
        message = f"cannot listen on {shown}:{port}: {error}"
        raise SettingsError(message) from error


def _check(host: str, port: int, shown: str) -> None:
    """Raise SettingsError when nothing can listen there."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        message = f"cannot listen on {shown}: the name cannot be resolved ({error.strerror})"
        raise SettingsError(message) from error
    obstacles = [_obstacle(family, address) for family, _, _, _, address in found]
    errors = [obstacle for obstacle in obstacles if obstacle is not None]
    taken = next((obstacle for obstacle in errors if obstacle.errno == errno.EADDRINUSE), None)
    if taken is not None:
        message = f"cannot listen on {shown}: the port is taken; stop what uses it, or choose another with --listen"
        raise SettingsError(message) from taken
    if len(errors) == len(found):
        message = f"cannot listen on {shown}: {errors[0].strerror}; choose an address of this machine with --listen"
        raise SettingsError(message) from errors[0]


def _is_here(host: str) -> bool:
    return _obstacle(socket.AF_INET6, (host, 0)) is None


def _obstacle(family: int, address: tuple[object, ...]) -> OSError | None:
    """Return what keeps a socket from listening on an address, None when nothing does."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        return error
    return None
