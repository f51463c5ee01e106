"""How texts become rows of `payloads`, and back: what is taken out of history, and what is compressed."""

import asyncio
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

from durabletask_sql.model.checkpoints import HistoryAppend, NewChild, TurnCheckpoint
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.payloads import Packed, PackedTurn
from durabletask_sql.protocol.texts import INPUT, OUTPUT, take_out
from durabletask_sql.storage.dialect import Row

INLINE_BYTES = 64 * 1024  # texts of this size and more are taken out of history

# zlib's fastest level: JSON shrinks to a fifth at 250 MB/s, the default level gains a twelfth more at a third of the
# speed. Random bytes and base64 would cost 45 MB/s for nothing or little, so large texts are tried at three places.
_LEVEL = 1
_COMPRESS_FROM = 8 * 1024
_SAMPLE = 8 * 1024
_WORTH = 0.75


def pack(content: bytes) -> Packed:
    """Return a text as it is stored: compressed when that saves a quarter of it."""
    size = len(content)
    if size < _COMPRESS_FROM or (size > 6 * _SAMPLE and not _is_worth_it(_sample(content))):
        return Packed(content)
    compressed = zlib.compress(content, _LEVEL)
    return Packed(compressed, size) if len(compressed) <= _WORTH * size else Packed(content)


def _sample(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:_SAMPLE] + content[middle:middle + _SAMPLE] + content[-_SAMPLE:]


def _is_worth_it(sample: bytes) -> bool:
    return len(zlib.compress(sample, _LEVEL)) <= _WORTH * len(sample)


def unpack(content: bytes, unpacked_size: int | None) -> bytes:
    """Return what was packed."""
    return content if unpacked_size is None else zlib.decompress(content, bufsize=unpacked_size)


async def pack_ahead(text: str | None) -> Packed | None:
    """Return a text as it is stored, packed off the event loop and off the writers' threads; None for none."""
    if text is None or len(text) < INLINE_BYTES:
        return None if text is None else pack(text.encode())
    return await asyncio.to_thread(lambda: pack(text.encode()))


def pack_turn(turn: TurnCheckpoint) -> PackedTurn:
    """Return what a turn stores of its texts. The work grows with what is large; small texts are left as they are."""
    texts, output = dict[int, Packed](), None if turn.output is None else turn.output.encode()
    if output is not None:
        texts[OUTPUT] = pack(output)
    if turn.new_input is not None:
        texts[INPUT] = pack(turn.new_input.encode())
    inputs = pack_inputs(turn.children)
    if turn.history is None:
        return PackedTurn(texts=texts, inputs=inputs)
    packed = pack_history(turn.history, output)
    return replace(packed, texts={**texts, **packed.texts}, inputs=inputs) if texts or inputs else packed


def pack_history(history: HistoryAppend, output: bytes | None = None) -> PackedTurn:
    """Return a row of history without its large texts, and those texts; a result that is `output` is kept as that."""
    taken = (take_out(history.events, INLINE_BYTES, history.first_sequence, output)
             if len(history.events) >= INLINE_BYTES else None)
    if taken is None:
        return PackedTurn(history.events)
    return PackedTurn(taken.events, taken.refs, _packed(taken.texts))


def pack_inputs(children: Iterable[NewChild]) -> dict[str, Packed]:
    """Return the inputs of orchestrations that are started, as they are stored, by execution id."""
    return {child.row.execution_id: pack(child.input.encode()) for child in children if child.input is not None}


def _packed(texts: Mapping[int, bytes]) -> dict[int, Packed]:
    return {payload_id: pack(text) for payload_id, text in texts.items()}


def history_row(key: InstanceKey, history: HistoryAppend, packed: PackedTurn) -> Row:
    """Return a row of `history`."""
    return *key, history.execution_id, history.first_sequence, history.count, packed.events, packed.refs


def payload_row(row: InstanceRow, payload_id: int, text: Packed) -> Row:
    """Return a row of `payloads`, of an instance's execution."""
    return *row.key, row.execution_id, payload_id, text.content, text.unpacked_size
