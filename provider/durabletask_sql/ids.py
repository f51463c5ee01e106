"""Identifiers, and the partition that an instance id belongs to.

Only this module draws random numbers.
"""

import random
import re
import secrets
import uuid

Dice = random.Random

_FNV_OFFSET = 2166136261
_FNV_PRIME = 16777619
_32_BITS = 0xFFFFFFFF
_GUID = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def new_execution_id() -> str:
    """Return a fresh execution id: 32 lower-case hexadecimal digits, the form that the JavaScript SDK requires."""
    return uuid.uuid4().hex


def new_claim_token() -> int:
    """Return a random positive 63-bit number that identifies one claim of an activity task."""
    return secrets.randbits(63) | 1


def new_host_id() -> int:
    """Return a random positive 62-bit number for one incarnation of a host (0 means "no host" in the tables)."""
    return secrets.randbits(62) | 1


def jitter() -> float:
    """Return a random factor from 0.5 to 1.5, for waits that several processes must not repeat in step."""
    return 0.5 + secrets.randbelow(1_001) / 1_000


def new_seed() -> int:
    """Return a random number that begins a sequence of dice, short enough to be told."""
    return secrets.randbelow(1_000_000)


def dice(seed: int) -> Dice:
    """Return dice that fall the same way again for the same seed: for tests of what chance may do."""
    return Dice(seed)


def partition_of(instance_id: str, partition_count: int) -> int:
    """Return the partition of an instance id: FNV-1a (32 bits) over its UTF-8 bytes, modulo the number of partitions.

    The same function as DTFx's AzureStorage provider uses (S-110).
    """
    value = _FNV_OFFSET
    for byte in instance_id.encode():
        value = ((value ^ byte) * _FNV_PRIME) & _32_BITS
    return value % partition_count


def is_entity(instance_id: str) -> bool:
    """Tell whether an instance id is an entity's ("@name@key") and not an orchestration's."""
    return instance_id.startswith("@")


def entity_name(entity_id: str) -> str:
    """Return the name that an entity's id holds, as filters have it."""
    return entity_id[1:].partition("@")[0].lower()


def is_guid(text: str) -> bool:
    """Tell whether a text is a GUID in one of its two plain forms: 32 hexadecimal digits, with or without dashes."""
    return _GUID.fullmatch(text) is not None


def guid_of(digits: str) -> str:
    """Return 32 hexadecimal digits as a GUID with its dashes."""
    return str(uuid.UUID(hex=digits))
