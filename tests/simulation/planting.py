"""Bugs to plant, one at a time: what the simulation has to find. Each is a substitution in the running program.

A bug is a function that says what to substitute: an object, the name of its attribute, and what stands there instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

Substitution = tuple[Any, str, Any]
Bug = Callable[[], Iterable[Substitution]]

BUGS: dict[str, Bug] = {}


def bug(name: str) -> Callable[[Bug], Bug]:
    """Name a bug."""
    def register(bug: Bug) -> Bug:
        BUGS[name] = bug
        return bug
    return register


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Run with a bug."""
    with ExitStack() as stack:
        for target, attribute, substitute in BUGS[name]():
            stack.enter_context(patch.object(target, attribute, substitute))
        yield
