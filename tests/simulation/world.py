"""One run of the simulation: hosts, workers, clients, misfortunes; and what has to hold at its end."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import shutil
import sqlite3
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from checker import check_hub
from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.storage import leases
from durabletask_sql.storage.lease_statements import LeaseStatements
from simulation.chance import seeded
from simulation.clients import SCENARIOS, Client
from simulation.flows import World
from simulation.hosts import EPOCH, LEASE_SECONDS, SimulatedHost
from simulation.loop import Process, VirtualLoop
from simulation.monitors import Monitors
from simulation.store import Weather, new_database, scratch
from simulation.workers import SimulatedWorker
from tables import rows

HOSTS, WORKERS, CLIENTS = 2, 3, 12
STORM_SECONDS = 70.0
PATIENCE_SECONDS = 400.0
_ROUNDS = 20
_FURTHEST_BACK_SECONDS = 120
_FEW_LEASES = 4


@dataclass
class Report:
    """What a run found. `trace` says what happened, `mark` is its hash."""

    seed: int
    problems: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0

    @property
    def mark(self) -> str:
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]


class Simulation:
    """A run under way."""

    host_count, worker_count = HOSTS, WORKERS

    def __init__(self, seed: int, folder: Path, chance: random.Random, loop: VirtualLoop) -> None:
        self.report = Report(seed)
        self.loop = loop
        self.url = new_database(folder)
        self.chance = chance
        self._ahead = self._furthest = 0  # microseconds by which the database's clock is set, and was at most
        self.weather = Weather()
        self.hosts: list[SimulatedHost] = []
        self.flows = World()
        self.monitors = Monitors(self.url.removeprefix("sqlite:///"), self.told)
        self._incarnations = 0

    # Telling

    def told(self, what: str, problem: str) -> None:
        """Note a problem."""
        self.report.problems.append(f"{what}: {problem}")
        self.note("problem", what, problem)

    def note(self, *what: object) -> None:
        self.report.trace.append(f"{self.loop.time():.6f} " + " ".join(map(str, what)))

    def now(self) -> int:
        """Return the database's time."""
        return EPOCH + self._ahead + int(self.loop.time() * MICROSECONDS)

    def latest(self) -> int:
        """Return the latest time that a host may take for the present one, as it has not heard yet of a jump back."""
        return self.now() - self._ahead + self._furthest

    def _took_effect(self, process: Process, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        self.note(process.name, name, self.monitors.look(process, name, arguments, result))

    # Hosts

    def start_host(self) -> SimulatedHost:
        self._incarnations += 1
        host = SimulatedHost(self.loop, f"host-{self._incarnations}", self.url, self.weather, self.chance, self._took_effect)
        self.note("starts", host.name)
        self.hosts.append(host)
        return host

    async def _keep_hosts(self) -> None:
        """Start a host where one is missing, a while after it went."""
        while True:
            await asyncio.sleep(self.chance.uniform(1.0, 10.0))
            self.hosts[:] = [host for host in self.hosts if not host.process.dead]
            if len(self.hosts) < self.host_count:
                self.start_host()

    # Misfortunes

    async def storm(self) -> None:
        """Let things go wrong for a while; then everything is well again."""
        until = self.loop.time() + STORM_SECONDS
        misfortunes = (self._kill, self._kill, self._freeze, self._freeze, self._expire, self._disconnect, self._crash_worker,
                       self._slow, self._fail, self._stop, self._jump)
        while self.loop.time() < until:
            await asyncio.sleep(self.chance.expovariate(1 / 4.0))
            await self.chance.choice(misfortunes)()
        self.weather.slow = self.weather.failing = 0.0
        for host in self.hosts:
            if host.process.frozen:
                host.process.thaw()

    def _victim(self) -> SimulatedHost | None:
        up = [host for host in self.hosts if host.is_up and not host.process.frozen]
        return self.chance.choice(up) if up else None

    async def _kill(self) -> None:
        if (host := self._victim()) is not None:
            self.note("kill", host.name)
            host.kill()

    async def _stop(self) -> None:
        if (host := self._victim()) is not None:
            self.note("stop", host.name)
            host.process.spawn(host.stop())

    async def _freeze(self) -> None:
        """Stop a host for up to three leases."""
        if (host := self._victim()) is not None:
            seconds = self.chance.uniform(0.1, 3 * LEASE_SECONDS)
            self.note("freeze", host.name, f"{seconds:.1f}")
            host.process.freeze()
            self.loop.call_later(seconds, self._thaw, host)

    def _thaw(self, host: SimulatedHost) -> None:
        if host.process.frozen and not host.process.dead:
            self.note("thaw", host.name)
            host.process.thaw()

    async def _expire(self) -> None:
        """Let the leases of all hosts run out at this moment."""
        self.note("expire")
        connection = sqlite3.connect(self.url.removeprefix("sqlite:///"))
        with connection:
            connection.execute("UPDATE hosts SET expires_at = 0")
        connection.close()

    async def _disconnect(self) -> None:
        worker = self.chance.choice(self.workers)
        self.note("disconnect", worker.name)
        worker.disconnect()

    async def _crash_worker(self) -> None:
        worker = self.chance.choice(self.workers)
        self.note("crash", worker.name)
        worker.crash()

    async def _slow(self) -> None:
        """Let some calls of the database take seconds, for a while; now and then longer than a lease."""
        self.note("slow")
        self.weather.slow, self.weather.slow_seconds = 0.2, self.chance.choice([2.0, 2.0, 1.5 * LEASE_SECONDS])
        self.loop.call_later(self.chance.uniform(0.5, 6.0), setattr, self.weather, "slow", 0.0)

    async def _fail(self) -> None:
        """Let some calls of the database fail, for a while."""
        self.note("fail")
        self.weather.failing = 0.3
        self.loop.call_later(self.chance.uniform(0.2, 5.0), setattr, self.weather, "failing", 0.0)

    async def _jump(self) -> None:
        """Set the database's clock; never so far back that timers would have to be waited for until the end."""
        seconds = self.chance.choice([3600, 20, -20, -90])
        self._ahead = max(self._ahead + seconds * MICROSECONDS, self._furthest - _FURTHEST_BACK_SECONDS * MICROSECONDS)
        self._furthest = max(self._furthest, self._ahead)
        self.note("jump", self._ahead / MICROSECONDS)

    # The run

    async def run(self) -> None:
        """Let clients at the hub, and things go wrong meanwhile."""
        await self.run_with([self._client(number) for number in range(CLIENTS)])

    async def run_with(self, clients: Sequence[Coroutine[Any, Any, None]]) -> None:
        """Start everything, wait for the clients, and look at what there is in the end."""
        for _ in range(self.host_count):
            self.start_host()
        keeper = asyncio.ensure_future(self._keep_hosts())
        self.workers = [SimulatedWorker(f"worker-{number}", self.hosts, self.flows, self.chance, self.told,
                                        self.monitors.answered, self.latest)
                        for number in range(self.worker_count)]
        working = [asyncio.ensure_future(worker.run()) for worker in self.workers]
        tasks = [asyncio.ensure_future(client) for client in clients]
        await self.storm()
        looking = asyncio.ensure_future(self._look_at_owners())
        _, late = await asyncio.wait(tasks, timeout=PATIENCE_SECONDS)
        for task in late:
            self.told("stuck", f"{task.get_name()} is not done after {PATIENCE_SECONDS:.0f} s")
        if not late:
            await self._come_to_rest()
            self._check()
        for task in (keeper, looking, *working, *late):
            task.cancel()

    async def _look_at_owners(self) -> None:
        """Whoever has died is taken over within a few leases, whatever the database's clock says."""
        await asyncio.sleep(_FEW_LEASES * LEASE_SECONDS)
        alive = {host.runtime.dispatcher._host_id for host in self.hosts if host.is_up}
        for partition, owner in rows(self.url, "SELECT partition, owner FROM partitions"):
            if owner not in alive:
                self.told("owner", f"partition {partition} is {owner:x}'s, who does not live")

    def finish(self) -> Report:
        """Return what was found; what is told from now on is not a part of the run."""
        report = self.report
        report.steps, report.seconds = self.loop.steps, self.loop.time()
        self.report = Report(report.seed)
        return report

    async def _client(self, number: int) -> None:
        name = self.chance.choice(sorted(SCENARIOS))
        instance = f"{name}-{number}"
        asyncio.current_task().set_name(instance)  # type: ignore[union-attr]
        await asyncio.sleep(self.chance.uniform(0.0, STORM_SECONDS * 0.8))
        await self.play(name, instance)

    async def play(self, name: str, instance: str) -> None:
        """Do what one client does."""
        client = Client(self.hosts, self.flows, self.chance, self.told, self.monitors.acknowledged, self.latest)
        self.note("client", instance)
        await SCENARIOS[name](client, instance)
        self.note("done", instance)

    async def _come_to_rest(self) -> None:
        """Wait until nothing is queued any more."""
        until = self.loop.time() + PATIENCE_SECONDS
        while self.loop.time() < until:
            if not any(rows(self.url, f"SELECT 1 FROM {table} LIMIT 1") for table in ("control_queue", "activity_queue")):
                return
            await asyncio.sleep(5.0)
        for table in ("control_queue", "activity_queue"):
            for row in rows(self.url, f"SELECT * FROM {table}"):
                self.told("left over", f"{table}: {row}")

    def _check(self) -> None:
        for problem in check_hub(self.url):
            self.told("checker", problem)
        for instance, status in rows(self.url, "SELECT instance_id, status FROM instances WHERE status NOT IN (1, 3, 4, 5)"):
            self.told("alive", f"{instance}: status {status}")
        for row in rows(self.url, "SELECT instance_id, cause FROM quarantine"):
            self.told("quarantine", str(row))
        accounts = rows(self.url, "SELECT state FROM entities WHERE state IS NOT NULL")
        if sum(int(state) for (state,) in accounts) != 0:
            self.told("accounts", f"they hold {accounts}")
        for row in rows(self.url, "SELECT instance_id FROM entities WHERE lock_instance_id IS NOT NULL"):
            self.told("lock", f"{row[0]}: is locked by nobody that lives")


class _Listener(logging.Handler):
    """What the product logs as an error is a problem."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(logging.INFO)
        self._simulation = simulation

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {record.exc_info[1]!r}"
        self._simulation.note("log", record.levelname, text)
        if record.levelno >= logging.ERROR:
            self._simulation.told("log", text)


@cache
def _lease_statements(*, is_sqlite: bool) -> LeaseStatements:
    """Build the lease statements once: they are compiled once then."""
    return LeaseStatements(is_sqlite=is_sqlite)


@contextmanager
def _surroundings(simulation: Simulation) -> Iterator[None]:
    """Hear what is logged, and let the database's time be the simulation's."""
    log, listener, kept = logging.getLogger("durabletask_sql"), _Listener(simulation), leases.process_time
    before = log.level, log.propagate
    log.addHandler(listener)
    log.setLevel(logging.INFO)
    log.propagate = False
    leases.process_time = simulation.now
    statements = leases.sql.LeaseStatements
    leases.sql.LeaseStatements = _lease_statements
    try:
        yield
    finally:
        leases.process_time, leases.sql.LeaseStatements = kept, statements
        log.removeHandler(listener)
        log.setLevel(before[0])
        log.propagate = before[1]


def simulate(seed: int, kind: type[Simulation] = Simulation) -> Report:
    """Run once under a seed."""
    folder, loop = scratch(), VirtualLoop()
    try:
        with seeded(seed) as chance:
            simulation = kind(seed, folder, chance, loop)
            loop.set_exception_handler(lambda _, context: simulation.told("loop", repr(context.get("exception") or context)))
            with _surroundings(simulation):
                try:
                    loop.run_until_complete(simulation.run())
                finally:
                    report = simulation.finish()
                    _dismantle(loop, simulation)
        return report
    finally:
        loop.close()
        shutil.rmtree(folder)


def _dismantle(loop: VirtualLoop, simulation: Simulation) -> None:
    """Cancel everything that still waits, and close the files."""
    async def pause() -> None:
        await asyncio.sleep(0)

    loop.set_free()
    for _ in range(_ROUNDS):
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(pause())
    left = asyncio.all_tasks(loop)
    assert not left, left
    simulation.monitors.close()
