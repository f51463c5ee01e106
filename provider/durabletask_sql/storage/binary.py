"""Values as PostgreSQL's binary parameters: integers, texts, bytes, and one-dimensional arrays of them. Pure.

A driver's general adaptation costs more than the statements of a group do; the commit path has five types.
"""

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any

from sqlalchemy import BigInteger, Integer, LargeBinary, SmallInteger, String
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine

Encoder = Callable[[Any], bytes | None]

_HEADER = Struct(">iiIii")  # dimensions, whether there are NULLs, type, length, lower bound
_LENGTH = Struct(">i")
_NULL = _LENGTH.pack(-1)
_INTEGERS = {SmallInteger: (21, "h", 2), BigInteger: (20, "q", 8), Integer: (23, "i", 4)}
_TEXT_TYPE, _BYTES_TYPE = 25, 17


def encoder(kind: TypeEngine[Any]) -> Encoder:
    """Return what encodes values of a column type, None being NULL. Encoders raise ValueError or struct.error.

    Raises TypeError for a type that no statement here uses.
    """
    if isinstance(kind, ARRAY):
        return _array(kind.item_type)
    for known, (_, form, _) in _INTEGERS.items():
        if isinstance(kind, known):
            pack = Struct(f">{form}").pack
            return lambda value: None if value is None else pack(value)
    if isinstance(kind, String):
        return lambda value: None if value is None else value.encode()
    if isinstance(kind, LargeBinary):
        return lambda value: value
    message = f"no binary form of {kind!r}"
    raise TypeError(message)


def _array(kind: TypeEngine[Any]) -> Encoder:
    for known, (oid, form, size) in _INTEGERS.items():
        if isinstance(kind, known):
            return _integers(oid, form, size)
    if isinstance(kind, String):
        return lambda values: _joined(_TEXT_TYPE, values, _sized_text)
    if isinstance(kind, LargeBinary):
        return lambda values: _joined(_BYTES_TYPE, values, _sized)
    message = f"no binary form of an array of {kind!r}"
    raise TypeError(message)


def _integers(oid: int, form: str, size: int) -> Encoder:
    pack = Struct(f">i{form}").pack

    def item(value: int) -> bytes:
        return pack(size, value)

    return lambda values: _joined(oid, values, item)


def _joined(oid: int, values: Sequence[Any] | None, item: Callable[[Any], bytes]) -> bytes | None:
    if values is None:
        return None
    parts = [_NULL if value is None else item(value) for value in values]
    return b"".join((_HEADER.pack(1, None in values, oid, len(parts), 1), *parts))


def _sized(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value


def _sized_text(value: str) -> bytes:
    return _sized(value.encode())
