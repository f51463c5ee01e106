"""Protobuf timestamps and the project's own times (int microseconds since 1970 UTC)."""

from google.protobuf.timestamp_pb2 import Timestamp

from durabletask_sql.errors import InvalidArgumentError

_MICROSECONDS = 1_000_000
_NANOSECONDS = 1_000
_MAX_NANOS = 999_999_999
_MIN_SECONDS = -62_135_596_800  # year 1
_MAX_SECONDS = 253_402_300_799  # year 9999


def timestamp(micros: int) -> Timestamp:
    """Return a time as a protobuf timestamp."""
    seconds, rest = divmod(micros, _MICROSECONDS)
    return Timestamp(seconds=seconds, nanos=rest * _NANOSECONDS)


def micros(stamp: Timestamp) -> int:
    """Return a protobuf timestamp in microseconds, rounded down."""
    return stamp.seconds * _MICROSECONDS + stamp.nanos // _NANOSECONDS


def micros_rounded_up(stamp: Timestamp) -> int:
    """Return a protobuf timestamp in microseconds, rounded up: nothing that waits for it may come early."""
    return stamp.seconds * _MICROSECONDS - (-stamp.nanos // _NANOSECONDS)


def check_range(stamp: Timestamp, what: str) -> None:
    """Raise InvalidArgumentError naming `what` unless the timestamp lies in the years 1 to 9999."""
    if not _MIN_SECONDS <= stamp.seconds <= _MAX_SECONDS or not 0 <= stamp.nanos <= _MAX_NANOS:
        message = (f"{what} has an impossible timestamp (seconds {stamp.seconds}, nanos {stamp.nanos}): "
                   "send a time between the years 1 and 9999")
        raise InvalidArgumentError(message)


def in_range(stamp: Timestamp) -> Timestamp:
    """Return the closest time in the years 1 to 9999: what SDKs' own dates can say goes further."""
    if stamp.seconds < _MIN_SECONDS:
        return Timestamp(seconds=_MIN_SECONDS)
    if stamp.seconds > _MAX_SECONDS:
        return Timestamp(seconds=_MAX_SECONDS, nanos=_MAX_NANOS)
    return Timestamp(seconds=stamp.seconds, nanos=min(max(stamp.nanos, 0), _MAX_NANOS))


def is_zero(stamp: Timestamp) -> bool:
    """Tell whether a timestamp is 1970-01-01, which SDKs send for "none"."""
    return not stamp.seconds and not stamp.nanos
