"""Servers and workers that are killed and stopped at random, and come back."""

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from durabletask_sql.demo.processes import Server, Worker
from durabletask_sql.errors import UnavailableError
from durabletask_sql.ids import Dice

T = TypeVar("T")

_PAUSE_SECONDS = (1.0, 5.0)
_STOPPED_SECONDS = (0.5, 40.0)
_DEAD_SECONDS = (0.0, 3.0)
_STOPPED_SHARE = 0.3
_START_SECONDS = 60.0
_RETRY_SECONDS = 1.0


async def finished(work: Callable[[], T]) -> T:
    """Run `work` on a thread to its end, even if the caller is cancelled meanwhile: no process is left unknown."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise


@dataclass
class Fleet:
    """The processes of a torture. `done` counts what was done to them."""

    database: str
    hub: str
    folder: Path
    dice: Dice
    say: Callable[[str], None]
    servers: list[Server] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    @property
    def processes(self) -> list[Server | Worker]:
        """Everything that can be killed, workers first."""
        return [*self.workers, *self.servers]

    @property
    def addresses(self) -> list[str]:
        """Where the servers listen."""
        return [server.address for server in self.servers]

    async def start(self, servers: int, workers: int) -> None:
        """Start so many of each; every worker connects to every server."""
        for number in range(servers):
            server = Server(self.database, "--task-hub", self.hub, log=self.folder / f"server-{number}.log")
            self.servers.append(server)
            await finished(server.start)
        for _ in range(workers):
            await finished(lambda: self.workers.append(Worker(",".join(self.addresses), self.hub)))

    async def torment(self) -> None:
        """Until cancelled, every few seconds: kill a random process and start it again, or stop it for a while."""
        while True:
            await asyncio.sleep(self.dice.uniform(*_PAUSE_SECONDS))
            victim = self.dice.choice(self.processes)
            name = "server" if isinstance(victim, Server) else "worker"
            if self.dice.random() < _STOPPED_SHARE:
                seconds = self.dice.uniform(*_STOPPED_SECONDS)
                self.done[f"{name} stopped"] += 1
                self.say(f"SIGSTOP of a {name} for {seconds:.0f} s")
                await self._stop_for(victim, seconds)
            else:
                self.done[f"{name} killed"] += 1
                self.say(f"SIGKILL of a {name}")
                await finished(victim.kill)
                await asyncio.sleep(self.dice.uniform(*_DEAD_SECONDS))
                await self._restart(victim)

    @staticmethod
    async def _stop_for(victim: Server | Worker, seconds: float) -> None:
        victim.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            victim.send(signal.SIGCONT)

    async def _restart(self, victim: Server | Worker) -> None:
        """Start a process again; a server may find its database away for a while."""
        until = asyncio.get_running_loop().time() + _START_SECONDS
        while True:
            try:
                return await finished(victim.start)
            except UnavailableError:
                if asyncio.get_running_loop().time() > until:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)

    async def heal(self) -> None:
        """Start again what is dead: the torment may have been cancelled between a kill and a start."""
        for process in reversed(self.processes):
            if not process.is_running:
                await self._restart(process)

    def stop(self) -> None:
        """Stop everything, workers first."""
        for process in self.processes:
            process.stop()
