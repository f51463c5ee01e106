"""`durabletask-sql serve`."""

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

import uvloop

from durabletask_sql.cli.slices import shorten_slices
from durabletask_sql.host import Host
from durabletask_sql.settings import (
    DEFAULT_DATABASE,
    DEFAULT_HUB,
    DEFAULT_LEASE_SECONDS,
    DEFAULT_PORT,
    Limits,
    Settings,
    check_hubs,
    check_lease,
    check_max_payload,
    check_partitions,
    from_environment,
    parse_listen,
)
from durabletask_sql.sidecar.server import Server
from durabletask_sql.storage.url import parse_url
from durabletask_sql.telemetry import configure_logging

_log = logging.getLogger(__name__)

SWITCH_INTERVAL_SECONDS = 0.0005  # lets the committer's thread run beside a busy one
_GRACE_SECONDS = 1.0
_STOP_SECONDS = 5.0  # for what comes after draining: the streams' end, giving the partitions back
_HURRY_SECONDS = 1.0
_YOUNG_OBJECTS = 50_000  # Python's own 700 looks for cycles some hundred times a second under load, to find hardly any


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "serve", help="serve task hubs to the Durable Task SDKs over gRPC",
        description="Serve task hubs to the Durable Task SDKs over gRPC, until SIGINT or SIGTERM.",
        epilog="example: durabletask-sql serve --database postgresql://user:secret@db/tasks --task-hub orders --upgrade")
    parser.add_argument("--database", metavar="URL", help=f"sqlite:///file.db or postgresql://user:password@host/database "
                        f"(default: $DURABLETASK_SQL_DATABASE, else {DEFAULT_DATABASE})")
    parser.add_argument("--listen", metavar="HOST:PORT", help="address to listen on; port 0 takes a free one "
                        f"(default: $DURABLETASK_SQL_LISTEN, else port {DEFAULT_PORT} on both loopback addresses)")
    parser.add_argument("--task-hub", metavar="NAME", action="append", help="task hub to serve, created when missing; may "
                        "be given several times, the first is the default of calls that name none "
                        f"(default: $DURABLETASK_SQL_TASK_HUB, comma separated, else {DEFAULT_HUB})")
    parser.add_argument("--partitions", metavar="N", type=int, help="partitions of a hub that is created now "
                        "(default: 4 on SQLite, 16 on PostgreSQL; fixed afterwards)")
    parser.add_argument("--max-payload", metavar="BYTES", help="most bytes that an input, output, event or result may "
                        f"have (default: $DURABLETASK_SQL_MAX_PAYLOAD, else {Limits().payload_bytes})")
    parser.add_argument("--lease-seconds", metavar="SECONDS", help="how long this host may be silent before others take "
                        f"over its work (default: $DURABLETASK_SQL_LEASE_SECONDS, else {DEFAULT_LEASE_SECONDS:g})")
    parser.add_argument("--upgrade", action="store_true", help="create or upgrade the schema on PostgreSQL before serving")
    parser.add_argument("--allow-unsafe-database", action="store_true",
                        help="serve on a PostgreSQL with fsync off, which loses data in a crash")
    parser.add_argument("--manage-task-hubs", action="store_true", help="let clients empty the task hubs that are served, "
                        "with all their data (CreateTaskHub, DeleteTaskHub; default: $DURABLETASK_SQL_MANAGE_TASK_HUBS, "
                        "else no)")
    parser.add_argument("--log-level", default="warning", choices=("debug", "info", "warning", "error"),
                        help="least level of the logs on standard error (default: warning)")
    parser.set_defaults(run=run)


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings: options on top of the environment."""
    settings = from_environment()
    return replace(
        settings, database=settings.database if options.database is None else options.database,
        listen=settings.listen if options.listen is None else parse_listen(options.listen, "--listen"),
        hubs=check_hubs(options.task_hub, "--task-hub") if options.task_hub else settings.hubs,
        limits=Limits(payload_bytes=check_max_payload(options.max_payload, "--max-payload"))
        if options.max_payload is not None else settings.limits,
        lease_seconds=check_lease(options.lease_seconds, "--lease-seconds")
        if options.lease_seconds is not None else settings.lease_seconds,
        partitions=check_partitions(options.partitions), upgrade=options.upgrade,
        manage_hubs=options.manage_task_hubs or settings.manage_hubs,
        allow_unsafe_database=options.allow_unsafe_database)


def run(options: argparse.Namespace) -> int:
    """Serve until told to stop."""
    settings = settings_of(options)
    configure_logging(options.log_level)
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    if not shorten_slices():
        _log.info("this machine gives no short slices of its processors: answers may take longer while they are busy")
    return uvloop.run(_serve(settings))


def spare_collector() -> None:
    """Let Python look for cycles less often, and never among what is there by now: modules, classes, statements.

    The processor time of an item falls by about a tenth; what is garbage without a cycle is freed at once as before.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


async def _serve(settings: Settings) -> int:
    first, second = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (second if first.is_set() else first).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    in_time = asyncio.create_task(_leave_in_time(settings, first, second))
    host = await Host.open(settings)
    server = Server(host.hubs, settings)
    try:
        addresses = await server.start()
        await host.start()
        spare_collector()
        sys.stdout.write(f"durabletask-sql ready: listening on {' and '.join(addresses)}, database {host.store.shown}, "
                         f"task hub{'s' if len(host.hubs) > 1 else ''} {', '.join(host.hubs)}\n")
        sys.stdout.flush()
        await _first_of(first.wait(), host.failed)
        await _drain(host, server, settings, second)
    finally:
        first.set()  # whatever makes it stop
        await server.stop(0)
        await host.stop()
        in_time.cancel()
    if host.failed.done():
        raise host.failed.result()
    return 0


async def _drain(host: Host, server: Server, settings: Settings, second: asyncio.Event) -> None:
    """Let workers finish what they have; a second signal cuts it short, and a bug, after which nothing goes on."""
    grace = 0.0
    if not host.failed.done():
        _log.info("stopping: waiting up to %.0f s for work in progress; a second signal stops at once",
                  settings.drain_seconds)
        await _first_of(host.drain(settings.drain_seconds), second.wait(), host.failed)
        grace = 0.0 if second.is_set() or host.failed.done() else _GRACE_SECONDS
    server.end_streams()
    await server.stop(grace)


async def _leave_in_time(settings: Settings, first: asyncio.Event, second: asyncio.Event) -> None:
    """End the process when stopping takes too long, or after a second signal: its threads may wait for a lock for ever.

    A thread that waits in the database's library, or for the turn to write to a SQLite file, cannot be interrupted, and
    Python does not end before it does.
    """
    await first.wait()
    with suppress(TimeoutError):
        async with asyncio.timeout(settings.drain_seconds + _STOP_SECONDS):
            await second.wait()
            await asyncio.sleep(_HURRY_SECONDS)
    shown = parse_url(settings.database).shown
    sys.stderr.write(
        f"durabletask-sql: stopped without giving its partitions back, since the database {shown} "
        "does not answer (another process may hold its write lock): other hosts take them over when the lease of "
        f"{settings.lease_seconds:g} s has run out\n")
    sys.stderr.flush()
    os._exit(1)


async def _first_of(*waits: Coroutine[Any, Any, object] | asyncio.Future[Any]) -> None:
    """Wait for the first to come; what is waited for by the others is not waited for any more."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for wait, task in zip(waits, tasks, strict=True):
        if wait is not task:
            task.cancel()
