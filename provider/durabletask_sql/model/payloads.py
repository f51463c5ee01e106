"""Texts in the form in which `payloads` keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Packed:
    """A text as bytes of UTF-8; compressed when `unpacked_size` says how many bytes it gives."""

    content: bytes
    unpacked_size: int | None = None


@dataclass(frozen=True, slots=True)
class PackedTurn:
    """What a turn's checkpoint stores of its texts.

    `events` are its history without the large ones, which `refs` describe (None: there are none); `texts` are the
    payloads of its execution by their id, `inputs` those of its children by their execution id.
    """

    events: bytes = b""
    refs: bytes | None = None
    texts: Mapping[int, Packed] = field(default_factory=dict)
    inputs: Mapping[str, Packed] = field(default_factory=dict)
