"""Workers of every SDK come back by themselves after their server was stopped and started again."""

from __future__ import annotations

import pytest

from polyglot.languages import MARKS, completed
from polyglot.programs import LANGUAGES, Programs
from server import ServerProcess


@pytest.fixture
def server(tmp_path):
    process = ServerProcess(f"sqlite:///{tmp_path / 'hub.db'}", tmp_path / "server.log").start()
    yield process
    assert process.stop() == 0


@pytest.mark.parametrize("language", [pytest.param(name, marks=MARKS.get(name, ())) for name in LANGUAGES])
def test_a_worker_comes_back_after_a_restart_of_its_server(language, server, tmp_path):
    ours = Programs(LANGUAGES[language], server, "default", tmp_path / f"{language}.log")
    with ours.worker():
        assert ours.client("chain")["chain"] == completed(10)
        assert server.stop() == 0
        server.start()
        assert ours.client("chain")["chain"] == completed(10)
