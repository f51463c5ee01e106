"""`durabletask-sql torture`: work of several shapes under random kills, then a look at every promise."""

import argparse
import asyncio
import json
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc

from durabletask_sql.demo.fleet import Fleet
from durabletask_sql.demo.load import Load
from durabletask_sql.demo.shapes import COUNTERS, SHAPES
from durabletask_sql.doctor.examination import Examination
from durabletask_sql.doctor.findings import Level
from durabletask_sql.errors import SettingsError
from durabletask_sql.ids import dice, new_seed, partition_of
from durabletask_sql.model.instances import InstanceKey, InstanceState
from durabletask_sql.model.queries import InstanceQuery
from durabletask_sql.model.status import Status
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.protocol.framing import iter_events
from durabletask_sql.storage.inspection import SqlInspector
from durabletask_sql.storage.store import SqlStore

_INTERRUPTED = 130
_LEASE_SECONDS = 12.0
_PAGE = 200
_SHOWN = 20
_REPORT_SECONDS = 10.0
_TROUBLE = re.compile(r"(?i:deadlock|serializ)|Traceback|\bUNKNOWN\b")


def run(options: argparse.Namespace) -> int:
    """Torture, and return 0 when every promise held."""
    return asyncio.run(_interruptible(options))


async def _interruptible(options: argparse.Namespace) -> int:
    task = asyncio.ensure_future(_run(options))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        _say("interrupted: everything was stopped, and the task hub removed")
        return _INTERRUPTED


async def _run(options: argparse.Namespace) -> int:
    seed = options.seed if options.seed is not None else new_seed()
    store = await SqlStore.open(options.database, lease_seconds=_LEASE_SECONDS)
    try:
        return await _torture(options, seed, store)
    finally:
        await store.close()


async def _torture(options: argparse.Namespace, seed: int, store: SqlStore) -> int:
    name = f"torture-{seed}"
    hub = await store.open_hub(name, None)
    if (await store.instances(hub).query(InstanceQuery(page_size=1))).states:
        message = f"the task hub {name!r} holds instances of an earlier torture: examine it, or choose another --seed"
        raise SettingsError(message)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    fleet = Fleet(options.database, name, folder, dice(seed), _say)
    good, problems = False, list[str]()
    _say(f"seed {seed}: {options.servers} servers and {options.workers} workers on {store.shown}, task hub {name}, "
         f"{options.in_flight} orchestrations in flight for {options.minutes:g} minutes")
    try:
        problems = await _under_torment(options, seed, store, hub, fleet)
        good = not problems
    except asyncio.CancelledError:
        good = True  # nothing was found, and nothing is left behind
        raise
    finally:
        await asyncio.to_thread(fleet.stop)
        if good:
            await store.remove_hub(hub)
            shutil.rmtree(folder, ignore_errors=True)
    _verdict(problems, seed, name, folder)
    return 1 if problems else 0


async def _under_torment(options: argparse.Namespace, seed: int, store: SqlStore, hub: TaskHub, fleet: Fleet) -> list[str]:
    await fleet.start(options.servers, options.workers)
    load = Load(fleet, store.instances(hub), hub, options.in_flight, dice(seed + 1))
    torment, work = asyncio.ensure_future(fleet.torment()), asyncio.ensure_future(load.run())
    try:
        await _watch(options.minutes * 60, torment, work, load, fleet)
        torment.cancel()
        await asyncio.wait((torment,))
        await fleet.heal()
        _say(f"no more blows ({', '.join(f'{what} {count} times' for what, count in sorted(fleet.done.items()))}); "
             f"{len(load.open)} orchestrations have to come to their end")
        load.close()
        await work
        await load.finish()
    except grpc.RpcError as error:
        return [f"a call was answered with {error.code()}: {error.details()}"]
    finally:
        for task in (torment, work):
            task.cancel()
        await asyncio.gather(torment, work, return_exceptions=True)
        await asyncio.to_thread(load.disconnect)
    return [*[f"{one} did not end" for one in sorted(load.open)], *await _look(store, hub, load.acknowledged),
            *await _examine(options.database, hub), *_trouble(fleet.folder)]


async def _watch(seconds: float, torment: "asyncio.Task[None]", work: "asyncio.Task[None]", load: Load, fleet: Fleet
                 ) -> None:
    """Say how it goes, until the time is over or something fails."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        await asyncio.wait((torment, work), timeout=min(_REPORT_SECONDS, left), return_when=asyncio.FIRST_COMPLETED)
        for task in (torment, work):
            if task.done():
                task.result()
        _say(f"{max(0, until - time.monotonic()):.0f} s left: {load.ended} orchestrations ended, {len(load.open)} in "
             f"flight, {fleet.done.total()} blows")


async def _look(store: SqlStore, hub: TaskHub, acknowledged: set[str]) -> list[str]:
    """Check all orchestrations: those acknowledged are there, completed, with their output, their results counted once."""
    instances, problems = store.instances(hub), list[str]()
    missing, after = set(acknowledged), None
    while True:
        page = await instances.query(InstanceQuery(page_size=_PAGE, payloads=True, after=after))
        for state in page.states:
            missing.discard(state.row.instance_id)
            problems += [problem async for problem in _look_at(store, hub, state)]
        after = page.next
        if after is None:
            break
    problems += [f"{one} was acknowledged, and is not there" for one in sorted(missing)]
    total = 0
    for place in range(COUNTERS):
        entity_id = f"@counter@{place}"
        found = await store.entities(hub).get(InstanceKey(partition_of(entity_id, hub.partition_count), entity_id))
        total += json.loads(found.row.state) if found is not None and found.row.state is not None else 0
    if total:
        problems.append(f"what was moved between the counters does not come to nothing, but to {total}")
    return problems


async def _look_at(store: SqlStore, hub: TaskHub, state: InstanceState) -> AsyncIterator[str]:
    row = state.row
    shape, number = SHAPES[row.name], row.instance_id.rpartition("-")[2]
    if row.status is not Status.COMPLETED:
        yield f"{row.instance_id} is {row.status.name} (generation {row.generation})"
        return
    if row.parent is None and not shape.is_right(int(number), state.output):
        yield f"{row.instance_id} has the output {state.output}, which is wrong"
    results = 0
    async for events in store.instances(hub).history(row.key, row.execution_id):
        results += sum(event.HasField("taskCompleted") for event in iter_events(events))
    if results != shape.results:
        yield f"{row.instance_id} counted {results} activity results, not {shape.results}"


async def _examine(database: str, hub: TaskHub) -> list[str]:
    inspector = await asyncio.to_thread(SqlInspector.open, database)
    try:
        report = await Examination(hub, inspector.inspection(hub), _say).run()
    finally:
        await inspector.close()
    return [f"doctor: {one.subject}: {one.text}" for one in report.findings if one.level is Level.PROBLEM]


def _trouble(folder: Path) -> Iterator[str]:
    """Yield what the servers' logs say of what must not happen."""
    for log in sorted(folder.glob("*.log")):
        for line in log.read_text(errors="replace").splitlines():
            if _TROUBLE.search(line):
                yield f"{log.name}: {line}"


def _verdict(problems: list[str], seed: int, name: str, folder: Path) -> None:
    if not problems:
        _say("GOOD: every orchestration completed with its output, results counted once, the doctor found nothing "
             f"(seed {seed})")
        return
    for problem in problems[:_SHOWN]:
        _say(f"- {problem}")
    _say(f"BAD: {len(problems)} problems with seed {seed}. The task hub {name} and the servers' logs in {folder} were "
         "kept: please report them")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
