"""A real PostgreSQL for the tests: a given one, else the newest server binaries, else Debian's package.

`python tests/postgres.py run -- COMMAND` starts one for a command, with DURABLETASK_SQL_TEST_POSTGRES_URL set.
"""

from __future__ import annotations

import itertools
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

VARIABLE = "DURABLETASK_SQL_TEST_POSTGRES_URL"
NOTHING_FOUND = (f"no PostgreSQL for the tests: set {VARIABLE} to a server's URL, install its server binaries (Debian: "
                 "`apt-get install postgresql`), or run as root on Debian so that this can be done for you")
_BECOME = """
import os, pwd, sys
name, program, *arguments = sys.argv[1:]
user = pwd.getpwnam(name)
os.initgroups(name, user.pw_gid)
os.setgid(user.pw_gid)
os.setuid(user.pw_uid)
os.execv(program, [program, *arguments])
"""
_numbers = itertools.count()
SETTINGS = {"fsync": "on", "max_connections": "200"}


class NoPostgresError(Exception):
    """There is no PostgreSQL, and none can be had."""


def find_binaries(roots: Path = Path("/usr/lib/postgresql"), path: str | None = None) -> Path | None:
    """Return the folder of the newest server binaries."""
    found = [folder / "bin" for folder in roots.glob("*") if (folder / "bin" / "postgres").is_file()]
    if found:
        return max(found, key=lambda folder: [int(part) for part in re.findall(r"\d+", folder.parent.name)])
    config = shutil.which("pg_config", path=path)
    if config is None:
        return None
    folder = Path(subprocess.run([config, "--bindir"], check=True, capture_output=True, text=True).stdout.strip())
    return folder if (folder / "postgres").is_file() else None


def provide_binaries() -> Path:
    """Return server binaries, installing Debian's package when this is root on Debian."""
    found = find_binaries()
    if found is None and os.geteuid() == 0 and Path("/etc/debian_version").exists():
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", "postgresql"]):
            subprocess.run(command, check=False, env=environment, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        found = find_binaries()
    if found is None:
        raise NoPostgresError(NOTHING_FOUND)
    return found


def _user() -> str | None:
    """Return whom to run the server as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def command_of(user: str | None, program: Path, *arguments: str) -> list[str]:
    """Return the command that runs a program as this user.

    `subprocess` would change the user itself, but forks for it, and gRPC may end the child of a fork where a client works.
    """
    command = [str(program), *arguments]
    return command if user is None else [sys.executable, "-ISc", _BECOME, user, *command]


@contextmanager
def server() -> Iterator[str]:
    """Yield the URL of a server's maintenance database."""
    given = os.environ.get(VARIABLE)
    if given:
        yield given
        return
    binaries, user = provide_binaries(), _user()
    with tempfile.TemporaryDirectory(prefix="durabletask-sql-pg-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        if user is not None:
            home.chmod(0o755)
            shutil.chown(home, user)
        with _running(binaries, home, user) as url:
            yield url


@contextmanager
def _running(binaries: Path, home: Path, user: str | None) -> Iterator[str]:
    data, port = home / "data", _free_port()

    def run(*command: str) -> None:
        done = subprocess.run(command_of(user, binaries / command[0], *command[1:]), check=False, cwd=home,
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            message = f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}"
            raise NoPostgresError(message)

    run("initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-instructions")
    options = {**SETTINGS, "port": str(port), "listen_addresses": "127.0.0.1", "unix_socket_directories": str(home),
               "logging_collector": "off"}
    process = subprocess.Popen(
        command_of(user, binaries / "postgres", "-D", str(data),
                   *(part for name, value in options.items() for part in ("-c", f"{name}={value}"))),
        cwd=home, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=(home / "server.log").open("w"))
    try:
        _wait_until_ready(binaries, port, process, home)
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(binaries: Path, port: int, process: subprocess.Popen[bytes], home: Path) -> None:
    for _ in range(600):
        ready = subprocess.run([str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port), "-t", "1"],
                               check=False)
        if ready.returncode == 0:
            return
        if process.poll() is not None:
            break
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    message = f"PostgreSQL did not start: {(home / 'server.log').read_text()[-2000:]}"
    raise NoPostgresError(message)


def create_database(maintenance_url: str) -> str:
    """Make a fresh database and return its URL."""
    import psycopg  # noqa: PLC0415 - `run` needs no more than the standard library

    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(maintenance_url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{name}"')
    return urlunsplit(urlsplit(maintenance_url)._replace(path=f"/{name}"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main(arguments: list[str], environment: Mapping[str, str] = os.environ) -> int:
    """Run a command beside a server."""
    if arguments[:2] != ["run", "--"] or len(arguments) < 3:
        sys.stderr.write("usage: python tests/postgres.py run -- COMMAND...\n")
        return 2
    try:
        with server() as url:
            return subprocess.run(arguments[2:], check=False, env={**environment, VARIABLE: url}).returncode
    except NoPostgresError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
