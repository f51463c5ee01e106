"""The installed server: what it says when it is ready, where it listens, whom it serves, and how it stops."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from e2e.conftest import Installed, clean_environment
from hubs import Hub
from server import ServerProcess
from tables import count

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
PAIRS = pytest.mark.parametrize(("number", "other"), [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)],
                                ids=["SIGINT", "SIGTERM"])
# What waits for work in progress outlasts any test, so that a server that ends did not.
LONG_DRAIN = """
import sys
from dataclasses import replace
from durabletask_sql.cli import main, serve

settings_of = serve.settings_of
serve.settings_of = lambda options: replace(settings_of(options), drain_seconds=600.0)
"""
# After a second signal it has as long to close as a slow machine may need.
PATIENT = LONG_DRAIN + """
serve._HURRY_SECONDS = 60.0
sys.exit(main(sys.argv[1:]))
"""
NETWORK = ("unshare", "--map-root-user", "--net")
LOOPBACK = 'ip link set lo up && exec "$@"'
LOOPBACK_4 = "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 && " + LOOPBACK


@contextmanager
def serving(command: tuple[str, ...], folder: Path, variables: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run a server; yield its ready line; check that it says nothing else and ends with 0."""
    process = subprocess.Popen(command, cwd=folder, env=clean_environment(variables), text=True, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, *said) == (0, "", "")


def network(script: str) -> tuple[str, ...]:
    """Return how to run a command in a network of its own, where every port is free."""
    command = (*NETWORK, "sh", "-c", script, "sh")
    done = subprocess.run([*command, "true"], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("this machine does not let its users make networks")
    return command


def test_without_options_it_serves_a_file_here_on_both_loopback_addresses(installed, tmp_path):
    with serving((*network(LOOPBACK), *installed.command, "serve"), tmp_path) as ready:
        assert ready == ("durabletask-sql ready: listening on 127.0.0.1:4001 and [::1]:4001, "
                         "database sqlite:///durabletask.db, task hub default\n")
        assert (tmp_path / "durabletask.db").exists()


def test_a_machine_without_ipv6_serves_127_0_0_1_alone(installed, tmp_path):
    with serving((*network(LOOPBACK_4), *installed.command, "serve"), tmp_path) as ready:
        assert "listening on 127.0.0.1:4001, database" in ready


def test_environment_variables_are_heard_and_options_come_first(installed, tmp_path):
    variables = {"DURABLETASK_SQL_DATABASE": "sqlite:///mine.db", "DURABLETASK_SQL_LISTEN": "127.0.0.1:0",
                 "DURABLETASK_SQL_TASK_HUB": "one,two"}
    with serving((*installed.command, "serve"), tmp_path, variables) as ready:
        assert re.fullmatch(r"durabletask-sql ready: listening on 127\.0\.0\.1:\d+, database sqlite:///mine\.db, "
                            r"task hubs one, two\n", ready)
    options = ("--database", "sqlite:///other.db", "--listen", "[::1]:0", "--task-hub", "three")
    with serving((*installed.command, "serve", *options), tmp_path, variables) as ready:
        assert re.fullmatch(r".* \[::1\]:\d+, database sqlite:///other\.db, task hub three\n", ready)


@pytest.fixture
def command(installed: Installed, request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The installed command, or a program as its parameter that runs it otherwise."""
    return (installed.python, "-c", request.param) if hasattr(request, "param") else installed.command


@pytest.fixture
def server(command: tuple[str, ...], database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(database_url, tmp_path / "server.log", "--task-hub", "first", "--task-hub", "second",
                            "--log-level", "info", command=command)
    yield process.start()
    process.kill()


def test_it_serves_the_hubs_that_it_was_given_and_no_others(server):
    for name in ("first", "second", None):
        with Hub(server, name).client() as client:
            client.schedule_new_orchestration("nobody", instance_id=f"of-{name}")
    with Hub(server, "first").client() as client:
        assert client.get_orchestration_state("of-None") is not None
        assert client.get_orchestration_state("of-second") is None
    with Hub(server, "third").client() as client, pytest.raises(grpc.RpcError) as caught:
        client.schedule_new_orchestration("nobody")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "'third' is not served" in caught.value.details()


class Work:
    """An orchestration with one activity that the test holds."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.release = threading.Event()

        def do_hold(_, __):
            self.begun.set()
            assert self.release.wait(60)

        def holder(ctx, _):
            yield ctx.call_activity(do_hold)

        self.functions = (do_hold, holder)


@SIGNALS
def test_a_signal_lets_work_in_progress_finish(server, database_url, number):
    work, hub = Work(), Hub(server)
    with hub.client() as client, hub.worker(*work.functions):
        instance_id = client.schedule_new_orchestration("holder")
        assert work.begun.wait(30)
        server.send(number)
        assert server.is_running(1.0)
        work.release.set()
        assert not server.is_running(20)
        assert server.stop() == 0
    assert count(database_url, "activity_queue") == 0
    assert "stopping" in server.log.read_text()
    server.start()
    with hub.client() as client, hub.worker(*work.functions):
        assert client.wait_for_orchestration_completion(instance_id, timeout=30).runtime_status.name == "COMPLETED"


@PAIRS
@pytest.mark.parametrize("command", [PATIENT], indirect=True, ids=[""])
def test_a_second_signal_stops_it_at_once_and_nothing_is_lost(server, database_url, number, other):
    """Two of the same signal would be one for a server that has had no time between them."""
    work, hub = Work(), Hub(server)
    with hub.client() as client, hub.worker(*work.functions):
        instance_id = client.schedule_new_orchestration("holder")
        assert work.begun.wait(30)
        server.send(number)
        assert server.is_running(0.5)
        server.send(other)
        assert not server.is_running(60)
        assert server.stop() == 0
        work.release.set()
    assert count(database_url, "activity_queue") == 1
    server.start()
    with hub.client() as client, hub.worker(*work.functions):
        assert client.wait_for_orchestration_completion(instance_id, timeout=30).runtime_status.name == "COMPLETED"
