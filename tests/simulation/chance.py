"""Ids and random numbers of the product under a seed."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from durabletask_sql import ids


@contextmanager
def seeded(seed: int) -> Iterator[random.Random]:
    """Let everything that the product draws follow from a seed; give a source of chance for the rest."""
    drawn = random.Random(f"ids {seed}")
    kept = ids.secrets, ids.uuid
    ids.secrets = SimpleNamespace(randbits=drawn.getrandbits)  # type: ignore[assignment]  # no module
    ids.uuid = SimpleNamespace(  # type: ignore[assignment]  # likewise
        uuid4=lambda: uuid.UUID(int=drawn.getrandbits(128), version=4), UUID=uuid.UUID)
    try:
        yield random.Random(seed)
    finally:
        ids.secrets, ids.uuid = kept  # type: ignore[assignment]  # one tuple of two modules
