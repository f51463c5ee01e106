"""How deep a failure may nest: parsers give up at a hundred messages inside each other, and an event sits inside others.

A failure that a worker could send alone would end the stream of the worker that is told of it, again and again.
"""

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Value

from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import delimited

_INNER_FAILURE = b"\x22"  # TaskFailureDetails.innerFailure = 4
_WRAPPED = 16  # more than any message that the project puts around a failure, with room for readers that wrap it again
_DEEPEST_FAILURE = 30
_DEEPEST_VALUE = 10


def make_readable(failure: pb.TaskFailureDetails) -> None:
    """Cut what is so deep inside a failure that nobody could read it as part of a history."""
    data = failure.SerializeToString()
    for _ in range(_WRAPPED):
        data = delimited(_INNER_FAILURE, data)
    try:
        pb.TaskFailureDetails.FromString(data)
    except DecodeError:
        _cut(failure)


def _cut(failure: pb.TaskFailureDetails) -> None:
    failure.DiscardUnknownFields()
    at = failure
    for _ in range(_DEEPEST_FAILURE):
        for name in [name for name, value in at.properties.items() if not _is_shallow(value, _DEEPEST_VALUE)]:
            del at.properties[name]
        if not at.HasField("innerFailure"):
            return
        at = at.innerFailure
    at.ClearField("innerFailure")
    at.ClearField("properties")


def _is_shallow(value: Value, room: int) -> bool:
    match value.WhichOneof("kind"):
        case "struct_value":
            return room > 0 and all(_is_shallow(below, room - 1) for below in value.struct_value.fields.values())
        case "list_value":
            return room > 0 and all(_is_shallow(below, room - 1) for below in value.list_value.values)
        case _:
            return True
