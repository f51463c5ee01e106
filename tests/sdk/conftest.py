"""A server on each database for a module of scenarios, and the unmodified SDK's worker and client on it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from hubs import Hub
from postgres import create_database
from server import ServerProcess

_numbers = itertools.count()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server on a fresh database."""
    folder = tmp_path_factory.mktemp("server")
    if request.param == "sqlite":
        database = f"sqlite:///{folder / 'hub.db'}"
    else:
        database = create_database(request.getfixturevalue("postgres_server"))
    process = ServerProcess(database, folder / "server.log", "--task-hub", "default", "--task-hub", "second").start()
    yield process
    assert process.stop() == 0


@pytest.fixture
def fresh_id() -> Callable[[str], str]:
    """Ids that no other test uses."""
    return lambda name: f"{name}-{next(_numbers)}"


@pytest.fixture(scope="module")
def hub(server: ServerProcess) -> Hub:
    return Hub(server)
