"""Messages that a client or worker could send: every field of the protocol, valid, odd, damaged or random."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_DEPTH = 5
_NUMBERS = (0, 1, 2, 3, 7, 100, -1, 2**31 - 1, -(2**31))
_SECONDS = (0, 1, 1_700_000_000, 4_000_000_000, 253_402_300_799, 253_402_300_800, -62_135_596_801, 2**63 - 1, -(2**63))
_TEXTS = ("", "a", "name", "Ünïcödé 🦉", "nul\0inside", "line\nfeed", "%_'\"\\", "@", "@counter@one", "@@", "@x", "op", "release",
          "op@2031-01-01T00:00:00.0000000Z", '{"op":"add","signal":true,"id":"x"}', "null", '"json"', "x" * 256, "y" * 257,
          "z" * 5_000, "0f0e6f3c-9c5e-4d6c-8a56-0d2f6a5b1c11", "turn:1:1:1", "activity:1:0:1:1:1", "entity:1:0:1:1")
_FIELD_END = b"\xfa\xa7\x12\x03abc"  # an unknown field, length-delimited


class Fuzz:
    """Draws messages. `ids` are instance ids and tokens that were seen, so that some messages meet what is there."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.ids: list[str] = []

    def remember(self, text: str) -> None:
        """Keep an id or a token for later messages."""
        if len(self.ids) < 2_000:
            self.ids.append(text)
        else:
            self.ids[self.random.randrange(len(self.ids))] = text

    def request(self, kind: type[Message]) -> bytes:
        """A request as bytes: mostly a message of this kind, sometimes a damaged one, sometimes noise."""
        draw = self.random.random()
        if draw < 0.02:
            return self.random.randbytes(self.random.randrange(200))
        data = self.message(kind).SerializeToString()
        return self.damaged(data) if draw < 0.2 else data

    def damaged(self, data: bytes) -> bytes:
        """The same bytes, with something wrong."""
        at = self.random.randrange(len(data) + 1)
        ways: tuple[Callable[[], bytes], ...] = (
            lambda: data[:at],
            lambda: data[:at] + self.random.randbytes(1) + data[at + 1:],
            lambda: data[:at] + b"\xff\xfe" + data[at + 2:],
            lambda: data + _FIELD_END,
            lambda: data + data,
            lambda: data + self.nested(self.random.choice((50, 99, 500, 5_000))),
        )
        return self.random.choice(ways)()

    @staticmethod
    def nested(depth: int) -> bytes:
        """Field 4 in field 4 in field 4 (the inner failure of a failure, say)."""
        data = b""
        for _ in range(depth):
            size, rest = bytearray(), len(data)
            while rest > 127:
                size.append(rest & 127 | 128)
                rest >>= 7
            size.append(rest)
            data = b"\x22" + bytes(size) + data
        return data

    def message(self, kind: type[Message], depth: int = 0) -> Any:
        """A message of this kind; of a oneof at most one field stays, as protobuf has it."""
        made = kind()
        self.fill(made, depth)
        return made

    def fill(self, made: Message, depth: int = 0) -> None:
        """Set some of a message's fields."""
        if made.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
            made.seconds, made.nanos = self.random.choice(_SECONDS), self.random.choice((0, 1, 999_999_999, -1, 2**31 - 1))
            return
        dense = self.random.random()
        for field in made.DESCRIPTOR.fields:
            if self.random.random() < dense:
                self._set(made, field, depth)

    def _set(self, made: Message, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            self._fill_map(made, field, depth)
        elif field.is_repeated:
            count = self.random.choice((0, 1, 1, 2, 3)) if self.random.random() < 0.995 else 600
            for _ in range(count if field.message_type is None or depth < _DEPTH else 0):
                if field.message_type is not None:
                    self.fill(getattr(made, field.name).add(), depth + 1)
                else:
                    getattr(made, field.name).append(self.scalar(field))
        elif field.message_type is None:
            setattr(made, field.name, self.scalar(field))
        elif depth < _DEPTH:
            getattr(made, field.name).SetInParent()
            self.fill(getattr(made, field.name), depth + 1)

    def _fill_map(self, made: Message, field: FieldDescriptor, depth: int) -> None:
        value = field.message_type.fields_by_name["value"]
        entries = getattr(made, field.name)
        for _ in range(self.random.randrange(3)):
            if value.message_type is None:
                entries[self.text()] = self.scalar(value)
            elif depth < _DEPTH:
                self.fill(entries[self.text()], depth + 1)

    def scalar(self, field: FieldDescriptor) -> Any:
        """A value of a scalar field."""
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_STRING:
                return self.text() if field.type == FieldDescriptor.TYPE_STRING else self.random.randbytes(8)
            case FieldDescriptor.CPPTYPE_BOOL:
                return self.random.random() < 0.5
            case FieldDescriptor.CPPTYPE_ENUM:
                known = [value.number for value in field.enum_type.values]
                return self.random.choice((*known, *known, 99, -5))
            case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
                return self.random.choice((0.0, -1.5, float("inf"), float("nan"), 1e300))
            case FieldDescriptor.CPPTYPE_UINT32 | FieldDescriptor.CPPTYPE_UINT64:
                return abs(self.random.choice(_NUMBERS))
            case _:
                return self.random.choice(_NUMBERS)

    def text(self) -> str:
        """A text: odd ones, or an id or token that was seen."""
        if self.ids and self.random.random() < 0.5:
            return self.random.choice(self.ids)
        return self.random.choice(_TEXTS)


def kind_of(descriptor: Descriptor) -> type[Message]:
    """Return the class of a message."""
    found: type[Message] = GetMessageClass(descriptor)
    return found
