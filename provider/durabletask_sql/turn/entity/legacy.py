"""The older form of entity messages, which travel as events whose data is JSON (S-326, S-327).

A request's event is called "op", or "op@" with its due time; a response's is called as the request's id.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import MessageToDict

from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.errors import MalformedFrameError
from durabletask_sql.protocol import taskhub_pb2 as pb

RELEASE = "release"
_REQUEST = "op"
_DUE = re.compile(r"op@(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)")
_MICRO_DIGITS = 6


@dataclass(frozen=True, slots=True)
class LegacyRequest:
    """An operation, or a lock request (with a lock set, in which `position` says whose turn it is)."""

    id: str
    operation: str = ""
    signal: bool = False
    input: str | None = None
    parent: str = ""
    parent_execution: str = ""
    lock_set: tuple[str, ...] = ()
    position: int = 0


def is_request(name: str) -> bool:
    """Tell whether an event of this name is a request to an entity."""
    return name.startswith(_REQUEST)


def due_time(name: str) -> int | None:
    """Return when the request of an event of this name becomes due, in microseconds UTC, rounded up; None: at once.

    Raises MalformedFrameError when the time cannot be read.
    """
    if name == _REQUEST:
        return None
    found = _DUE.fullmatch(name)
    try:
        if found is not None:
            moment = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
            digits = (found[2] or "").ljust(_MICRO_DIGITS, "0")
            micros, rest = digits[:_MICRO_DIGITS], digits[_MICRO_DIGITS:]
            return int(moment.timestamp()) * MICROSECONDS + int(micros) + bool(rest.strip("0"))
    except ValueError:
        pass
    message = f"the event name {name!r} holds no due time: it is 'op', or 'op@' with a time in UTC as ISO 8601 has it"
    raise MalformedFrameError(message)


def parse_request(name: str, text: str) -> LegacyRequest:
    """Return a request. Raises MalformedFrameError when it is none."""
    if not is_request(name):
        message = f"an event named {name!r} is no request to an entity"
        raise MalformedFrameError(message)
    data = _parse(text)
    lock_set = data.get("lockset") or []
    if not isinstance(lock_set, list) or not all(isinstance(one, dict) for one in lock_set):
        message = "its lock set is not a list of entities"
        raise MalformedFrameError(message)
    position = data.get("pos", 0)
    return LegacyRequest(
        _text(data, "id"), _text(data, "op"), bool(data.get("signal")),
        _text(data, "input") if data.get("input") is not None else None, _text(data, "parent"),
        _text(data, "parentExecution"), tuple(f"@{_text(one, 'name')}@{_text(one, 'key')}" for one in lock_set),
        position if isinstance(position, int) else 0)


def format_request(request: LegacyRequest) -> tuple[str, str]:
    """Return the name and the data of a request's event."""
    data: dict[str, object] = {"op": request.operation or None}
    if request.signal:
        data["signal"] = True
    if request.input is not None:
        data["input"] = request.input
    data |= {"id": request.id, "parent": request.parent or None, "parentExecution": request.parent_execution or None}
    if request.lock_set:
        parts = (entity_id[1:].partition("@") for entity_id in request.lock_set)
        data |= {"lockset": [{"name": name, "key": key} for name, _, key in parts], "pos": request.position}
    return _REQUEST, json.dumps(data)


def parse_release(text: str) -> str:
    """Return the critical section that a release ends. Raises MalformedFrameError when it names none."""
    return _text(_parse(text), "id")


def granted() -> str:
    """Return the response that grants the locks of a critical section."""
    return json.dumps({"result": "Lock Acquisition Completed"})


def completed(output: str | None) -> str:
    """Return the response of an operation that succeeded."""
    return json.dumps({"result": output})


def failed(failure: pb.TaskFailureDetails) -> str:
    """Return the response of an operation that failed."""
    return json.dumps({"result": json.dumps(failure.errorMessage), "exceptionType": failure.errorType,
                       "failureDetails": _details(failure)})


def _details(failure: pb.TaskFailureDetails) -> dict[str, Any]:
    return {
        "ErrorType": failure.errorType, "ErrorMessage": failure.errorMessage,
        "StackTrace": failure.stackTrace.value if failure.HasField("stackTrace") else None,
        "InnerFailure": _details(failure.innerFailure) if failure.HasField("innerFailure") else None,
        "IsNonRetriable": failure.isNonRetriable,
        "Properties": {name: MessageToDict(value) for name, value in failure.properties.items()} or None,
    }


def _parse(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"it is not JSON that can be read: {error}"
        raise MalformedFrameError(message) from error
    if not isinstance(data, dict):
        message = "it is not a JSON object"
        raise MalformedFrameError(message)
    return data


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        message = f"its field {name!r} is not a text"
        raise MalformedFrameError(message)
    if value and any("\ud800" <= letter <= "\udfff" for letter in value):
        message = f"its field {name!r} holds half of a surrogate pair, which no message can carry"
        raise MalformedFrameError(message)
    return value or ""
