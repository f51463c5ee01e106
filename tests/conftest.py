"""Fixtures that every kind of test uses: the two databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from postgres import NoPostgresError, create_database, server

# How fast examples are drawn says something about the machine's other work, and nothing about what is tested.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL server's maintenance database. Ends the run with one sentence, and never skips, when there is none."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(server())
        except NoPostgresError as error:
            pytest.exit(str(error), returncode=1)
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """A fresh PostgreSQL database."""
    return create_database(postgres_server)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.db'}"
    return create_database(request.getfixturevalue("postgres_server"))
