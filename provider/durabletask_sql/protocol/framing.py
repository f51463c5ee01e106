"""Ordered lists of history events as bytes.

Each event is encoded as field 3 of OrchestratorRequest (its pastEvents): tag 0x1a, length, event. A request's past
events are the stored rows joined end to end, without parsing, and fields that this program does not know survive.
"""

from collections.abc import Iterable, Iterator

from durabletask_sql.errors import MalformedFrameError
from durabletask_sql.protocol import taskhub_pb2 as pb

TAG = 0x1A
_TAG_BYTES = b"\x1a"
_LOW_BITS = 0x7F
_MORE = 0x80
_MAX_SHIFT = 28
_EVENT_ID_TAG = 0x08
_TIMESTAMP_TAG = 0x12


def varint(value: int) -> bytes:
    """Return a length as protobuf encodes it."""
    out = bytearray()
    while value > _LOW_BITS:
        out.append(value & _LOW_BITS | _MORE)
        value >>= 7
    out.append(value)
    return bytes(out)


def delimited(tag: bytes, body: bytes) -> bytes:
    """Return a length-delimited protobuf field: its tag, the length, the body."""
    return tag + varint(len(body)) + body


def frame(event: pb.HistoryEvent) -> bytes:
    """Return one event, framed."""
    return delimited(_TAG_BYTES, event.SerializeToString())


def frame_all(events: Iterable[pb.HistoryEvent]) -> bytes:
    """Return events, framed, in their order."""
    return b"".join([frame(event) for event in events])


def iter_spans(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each framed event's own bytes begin and end. Raises MalformedFrameError for anything else."""
    at, end = 0, len(data)
    while at < end:
        start = at
        if data[at] != TAG:
            _fail(start, end, f"the tag is 0x{data[at]:02x}, not 0x{TAG:02x}")
        length, shift, at = 0, 0, at + 1
        while True:
            if at >= end or shift > _MAX_SHIFT:
                _fail(start, end, "the length does not end")
            byte = data[at]
            at += 1
            length |= (byte & _LOW_BITS) << shift
            if byte < _MORE:
                break
            shift += 7
        if at + length > end:
            _fail(start, end, f"{length} bytes announced, {end - at} left")
        yield at, at + length
        at += length


def iter_frames(data: bytes) -> Iterator[bytes]:
    """Yield each framed event's own bytes, unparsed. Raises MalformedFrameError for anything else."""
    return (data[start:end] for start, end in iter_spans(data))


def iter_events(data: bytes) -> Iterator[pb.HistoryEvent]:
    """Yield the framed events, parsed."""
    for body in iter_frames(data):
        yield pb.HistoryEvent.FromString(body)


def retag(data: bytes, tag: bytes) -> bytes:
    """Return the same events under another field's tag (of a HistoryChunk, or of newEvents)."""
    return b"".join([delimited(tag, body) for body in iter_frames(data)])


def without(data: bytes, kind: int) -> bytes:
    """Return the same events less those that carry this field of HistoryEvent.eventType."""
    return b"".join([delimited(_TAG_BYTES, body) for body in iter_frames(data) if event_kind(body) != kind])


def keep_kinds(data: bytes, kinds: frozenset[int]) -> bytes:
    """Return those of the framed events whose kind (see `event_kind`) is among these."""
    return b"".join([delimited(_TAG_BYTES, body) for body in iter_frames(data) if event_kind(body) in kinds])


def split_frames(parts: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Yield the same framed events in order, in pieces of at most so many bytes (an event that is larger goes alone)."""
    pieces: list[bytes] = []
    size = 0
    for part in parts:
        frames = (part,) if len(part) <= limit else (delimited(_TAG_BYTES, body) for body in iter_frames(part))
        for piece in frames:
            if pieces and size + len(piece) > limit:
                yield b"".join(pieces)
                pieces, size = [], 0
            pieces.append(piece)
            size += len(piece)
    if pieces:
        yield b"".join(pieces)


def largest_frame(parts: Iterable[bytes], above: int) -> int:
    """Return the size of the largest event among those in parts larger than `above`; 0 when there is no such part."""
    return max((len(body) for part in parts if len(part) > above for body in iter_frames(part)), default=0)


def _fail(offset: int, length: int, why: str) -> None:
    message = f"stored history is damaged at byte {offset} of {length}: {why}"
    raise MalformedFrameError(message)


def event_kind(body: bytes) -> int:
    """Return the field number of what an event's bytes carry (HistoryEvent.eventType), without parsing it; 0: none."""
    at, end = 0, len(body)
    while at < end:
        tag = body[at]
        if tag == _EVENT_ID_TAG:
            at += 1
            while at < end and body[at] >= _MORE:
                at += 1
            at += 1
        elif tag == _TIMESTAMP_TAG and at + 1 < end:
            at += 2 + body[at + 1]  # a timestamp is shorter than 128 bytes
        elif tag < _MORE:
            return tag >> 3
        elif at + 1 < end:
            return (tag & _LOW_BITS | body[at + 1] << 7) >> 3
        else:
            return 0
    return 0
