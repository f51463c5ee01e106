"""Large texts taken out of framed events and put back, byte for byte.

What is taken out is a range of bytes: the value of one string or bytes field. Nothing is parsed into messages and
encoded again, so the events come back exactly as they were, unknown fields included. What is left is no longer a
framed list: it has to be put back before anybody reads it. `refs` describe the gaps, from first to last.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from durabletask_sql.errors import MalformedFrameError
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import iter_spans

INPUT, OUTPUT, FIRST = 0, 1, 2

_REF = Struct(">QIQQ")
_WIRE_BITS, _NUMBER_SHIFT = 0x07, 3
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}
_MORE, _LOW_BITS, _MAX_SHIFT = 0x80, 0x7F, 63
_MAX_DEPTH = 100  # of nested messages, as protobuf's own parsers have it
_EXECUTION_STARTED = 1  # its sequence: a history begins with OrchestratorStarted, then it
_VALUE = 1  # StringValue.value
_INPUT_PATH = (pb.HistoryEvent.EXECUTIONSTARTED_FIELD_NUMBER, pb.ExecutionStartedEvent.INPUT_FIELD_NUMBER, _VALUE)
_OUTPUT_PATH = (pb.HistoryEvent.EXECUTIONCOMPLETED_FIELD_NUMBER, pb.ExecutionCompletedEvent.RESULT_FIELD_NUMBER, _VALUE)


class Ref(NamedTuple):
    """A gap: its offset in what is stored, and the part of a payload (its id, a start, a size) that belongs there."""

    offset: int
    payload_id: int
    start: int
    size: int


class Range(NamedTuple):
    """Where a large text stands in some bytes, and the field numbers that lead to it."""

    start: int
    end: int
    path: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TakenOut:
    """Events without their large texts: what is stored in their row, and the texts by payload id."""

    events: bytes
    refs: bytes
    texts: Mapping[int, bytes]


def take_out(events: bytes, threshold: int, first_sequence: int, output: bytes | None = None) -> TakenOut | None:
    """Take out the texts of at least `threshold` bytes (at least 1); None when there are none.

    Payload ids are INPUT for the input that the execution was started with (its creation keeps that anyway), OUTPUT
    for a result that is `output`, else FIRST plus the sequence of the event, whose texts follow each other there.
    """
    taker = _Taker(events, output)
    for number, (start, end) in enumerate(iter_spans(events)):
        if end - start >= threshold:
            for found in large_texts(pb.HistoryEvent, events, start, end, threshold):
                taker.take(found, first_sequence + number)
    return taker.result() if taker.refs else None


class _Taker:
    """The texts of one row of history on their way out."""

    def __init__(self, events: bytes, output: bytes | None) -> None:
        self.refs: list[Ref] = []
        self._events = events
        self._output = output
        self._kept: list[bytes] = []
        self._kept_size = 0
        self._at = 0
        self._texts: dict[int, list[bytes]] = {}
        self._sizes: dict[int, int] = {INPUT: 0, OUTPUT: 0}

    def take(self, found: Range, sequence: int) -> None:
        text = self._events[found.start:found.end]
        payload_id = self._payload_id(found.path, sequence, text)
        start = self._sizes.setdefault(payload_id, 0)
        if payload_id >= FIRST:
            self._sizes[payload_id] += len(text)
            self._texts.setdefault(payload_id, []).append(text)
        self._kept.append(self._events[self._at:found.start])
        self._kept_size += found.start - self._at
        self._at = found.end
        self.refs.append(Ref(self._kept_size, payload_id, start, len(text)))

    def _payload_id(self, path: tuple[int, ...], sequence: int, text: bytes) -> int:
        if path == _INPUT_PATH and sequence == _EXECUTION_STARTED and not self.refs:
            return INPUT
        return OUTPUT if path == _OUTPUT_PATH and text == self._output else FIRST + sequence

    def result(self) -> TakenOut:
        events = b"".join((*self._kept, self._events[self._at:]))
        return TakenOut(events, b"".join([_REF.pack(*ref) for ref in self.refs]),
                        {payload_id: b"".join(parts) for payload_id, parts in self._texts.items()})


def put_back(events: bytes, refs: bytes, texts: Mapping[int, bytes]) -> bytes:
    """Return the events as they were. Raises MalformedFrameError when a text is missing or has another size."""
    parts, at = list[bytes](), 0
    for ref in read_refs(refs):
        text = texts.get(ref.payload_id)
        whole = text is not None and ref.size == len(text)
        if text is None or not (whole or (ref.payload_id >= FIRST and ref.start + ref.size <= len(text))):
            found = "is missing" if text is None else f"has {len(text)} bytes"
            message = (f"stored history is damaged: {ref.size} bytes from {ref.start} on of payload {ref.payload_id} "
                       f"belong into it, and that payload {found}")
            raise MalformedFrameError(message)
        parts += (events[at:ref.offset], text if whole else text[ref.start:ref.start + ref.size])
        at = ref.offset
    parts.append(events[at:])
    return b"".join(parts)


def read_refs(refs: bytes) -> Sequence[Ref]:
    """Return the gaps, in their order. Raises MalformedFrameError for bytes that describe none."""
    if not refs or len(refs) % _REF.size:
        message = f"stored history is damaged: {len(refs)} bytes are no list of references to payloads"
        raise MalformedFrameError(message)
    return [Ref(*values) for values in _REF.iter_unpack(refs)]


def large_texts(kind: type[Message], data: bytes, start: int, end: int, threshold: int) -> Iterator[Range]:
    """Yield the texts of at least `threshold` bytes of the message that stands there, in their order.

    Total: bytes that are no such message, or end early, simply have fewer texts.
    """
    yield from _texts(data, start, end, threshold, cast("Descriptor", kind.DESCRIPTOR), ())


def _texts(data: bytes, at: int, end: int, threshold: int, kind: Descriptor, path: tuple[int, ...]) -> Iterator[Range]:
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> _NUMBER_SHIFT, tag & _WIRE_BITS
        if wire == _VARINT:
            at = _varint(data, at, end)[1]
        elif wire in _FIXED:
            at += _FIXED[wire]
        elif wire == _DELIMITED:
            size, at = _varint(data, at, end)
            if at + size > end:
                return
            if size >= threshold:
                field = kind.fields_by_number.get(number)
                below = field.message_type if field is not None else None
                if below is not None and len(path) < _MAX_DEPTH:
                    yield from _texts(data, at, at + size, threshold, below, (*path, number))
                else:
                    yield Range(at, at + size, (*path, number))
            at += size
        else:  # groups, which this protocol does not have
            return


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return a number and the position behind it; one that does not end reaches beyond everything."""
    value = shift = 0
    while at < end and shift <= _MAX_SHIFT:
        byte = data[at]
        at += 1
        value |= (byte & _LOW_BITS) << shift
        if byte < _MORE:
            return value, at
        shift += 7
    return 0, end + 1
