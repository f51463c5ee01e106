"""A server on each database for all languages, and what each language's scenarios saw on it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from polyglot.programs import LANGUAGES, Programs, Results
from postgres import create_database
from server import ServerProcess

Make = Callable[[str, str], Programs]


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where files go, once a database."""
    return tmp_path_factory.mktemp(request.param)


@pytest.fixture(scope="session")
def database(folder: Path, request: pytest.FixtureRequest) -> str:
    """A fresh database of each kind."""
    if folder.name.startswith("sqlite"):
        return f"sqlite:///{folder / 'hub.db'}"
    return create_database(request.getfixturevalue("postgres_server"))


@pytest.fixture(scope="session")
def server(database: str, folder: Path) -> Iterator[ServerProcess]:
    """A server with a hub for each language, and one where they meet. It must have nothing to complain about."""
    hubs = [part for name in (*LANGUAGES, "between") for part in ("--task-hub", name)]
    process = ServerProcess(database, folder / "server.log", *hubs).start()
    yield process
    assert process.stop() == 0
    complaints = [line for line in process.log.read_text().splitlines() if " ERROR " in line or " CRITICAL " in line]
    assert not complaints


@pytest.fixture(scope="session")
def programs(server: ServerProcess, folder: Path) -> Make:
    """Make the programs of a language on a hub."""
    return lambda language, hub: Programs(LANGUAGES[language], server, hub, folder / f"{language}.log")


@pytest.fixture(scope="session")
def scenarios(programs: Make) -> Callable[[str], Results]:
    """Run all scenarios of a language, once a database, with its own worker on its own hub."""
    @functools.cache
    def run(language: str) -> Results:
        ours = programs(language, language)
        with ours.worker():
            return ours.client()

    return run


@pytest.fixture
def seen(request: pytest.FixtureRequest, scenarios: Callable[[str], Results]) -> Results:
    """What the scenarios of a language saw; the language is the parameter (see `languages`)."""
    return scenarios(request.param)
