"""What can be set, from options and environment variables, checked once at the edge."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from durabletask_sql.errors import SettingsError

DEFAULT_DATABASE = "sqlite:///durabletask.db"
DEFAULT_PORT = 4001
DEFAULT_HUB = "default"
DEFAULT_LEASE_SECONDS = 12.0
_MAX_PORT = 65_535
_MAX_PARTITIONS = 1_024
_SWITCH = {**dict.fromkeys(("1", "true", "yes", "on"), True), **dict.fromkeys(("", "0", "false", "no", "off"), False)}
_MAX_HUB_NAME = 100
N = TypeVar("N", int, float)

_LEAST_PAYLOAD = 1_024
_LEAST_LEASE, _MOST_LEASE = 3, 600
_MOST_PAYLOAD = 256 * 1024 * 1024  # a statement carries a few of them, and PostgreSQL takes 1 GiB in one


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may send; `payload_bytes` holds for workers' answers too. Sizes are bytes of UTF-8."""

    payload_bytes: int = 16 * 1024 * 1024
    instance_id: int = 256
    entity_id: int = 100
    name: int = 300
    page: int = 1_000
    batch: int = 500


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen. `explicit` False: the default, both loopback addresses as far as the machine has them."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    explicit: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a host is told. Seconds where the name says so."""

    database: str = DEFAULT_DATABASE
    listen: Listen = Listen()
    hubs: tuple[str, ...] = (DEFAULT_HUB,)
    partitions: int | None = None
    upgrade: bool = False
    allow_unsafe_database: bool = False
    manage_hubs: bool = False
    limits: Limits = field(default_factory=Limits)
    lease_seconds: float = DEFAULT_LEASE_SECONDS
    drain_seconds: float = 10.0
    ping_seconds: float = 30.0
    default_slots: int = 100


def parse_listen(text: str, where: str) -> Listen:
    """Return HOST:PORT as an address. Raises SettingsError naming `where` it came from."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
        message = f"{where} {text!r} is not HOST:PORT with a port from 0 to {_MAX_PORT}: write 127.0.0.1:4001, say"
        raise SettingsError(message)
    return Listen(host.removeprefix("[").removesuffix("]"), int(port), explicit=True)


def check_hubs(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the names of the task hubs to serve, each once. Raises SettingsError for one that cannot be a name."""
    for name in names:
        if not name or len(name) > _MAX_HUB_NAME or not name.isprintable() or name != name.strip():
            message = (f"{where} {name!r} is not a task hub's name: use 1 to {_MAX_HUB_NAME} printable characters without "
                       "spaces at the ends")
            raise SettingsError(message)
    return tuple(dict.fromkeys(names))


def check_partitions(count: int | None) -> int | None:
    """Return a partition count. Raises SettingsError when it is out of range."""
    if count is not None and not 1 <= count <= _MAX_PARTITIONS:
        message = f"--partitions {count} is out of range: use 1 to {_MAX_PARTITIONS}"
        raise SettingsError(message)
    return count


def check_max_payload(size: int | str, where: str) -> int:
    """Return the most bytes that a payload may have. Raises SettingsError naming `where` it came from."""
    return _number(int, size, where, "bytes", _LEAST_PAYLOAD, _MOST_PAYLOAD)


def check_lease(seconds: float | str, where: str) -> float:
    """Return how long a host may be silent. Raises SettingsError naming `where` it came from."""
    return _number(float, seconds, where, "seconds", _LEAST_LEASE, _MOST_LEASE)


def _number(read: Callable[[float | str], N], given: float | str, where: str, unit: str, least: float,
            most: float) -> N:
    """Return a number within its bounds."""
    try:
        found = read(given)
    except ValueError:
        found = None
    if found is None or not least <= found <= most:
        message = f"{where} {given!r} is not a number of {unit} from {least} to {most}"
        raise SettingsError(message)
    return found


def check_switch(text: str, where: str) -> bool:
    """Return whether something is switched on. Raises SettingsError naming `where` it came from."""
    word = text.strip().lower()
    if word not in _SWITCH:
        message = f"{where} {text!r} is neither on nor off: use 1 or 0"
        raise SettingsError(message)
    return _SWITCH[word]


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings that environment variables give; options come on top."""
    listen, hubs = environment.get("DURABLETASK_SQL_LISTEN"), environment.get("DURABLETASK_SQL_TASK_HUB")
    payload, lease = environment.get("DURABLETASK_SQL_MAX_PAYLOAD"), environment.get("DURABLETASK_SQL_LEASE_SECONDS")
    return Settings(
        database=environment.get("DURABLETASK_SQL_DATABASE") or DEFAULT_DATABASE,
        listen=parse_listen(listen, "DURABLETASK_SQL_LISTEN") if listen else Listen(),
        hubs=check_hubs(hubs.split(","), "DURABLETASK_SQL_TASK_HUB") if hubs else (DEFAULT_HUB,),
        manage_hubs=check_switch(environment.get("DURABLETASK_SQL_MANAGE_TASK_HUBS", ""),
                                 "DURABLETASK_SQL_MANAGE_TASK_HUBS"),
        limits=Limits(payload_bytes=check_max_payload(payload, "DURABLETASK_SQL_MAX_PAYLOAD")) if payload else Limits(),
        lease_seconds=check_lease(lease, "DURABLETASK_SQL_LEASE_SECONDS") if lease else DEFAULT_LEASE_SECONDS,
    )
