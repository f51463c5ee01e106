"""Clients in the simulation: each does one thing to the hub, insists until it is done, and says what came out wrong."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from durabletask_sql.errors import AlreadyExistsError, FailedPreconditionError, OutcomeUnknownError, UnavailableError
from durabletask_sql.host import HubRuntime
from durabletask_sql.model.creation import CreationPolicy
from durabletask_sql.model.instances import InstanceState
from durabletask_sql.model.status import LIVE, TERMINAL, Status
from durabletask_sql.service.abstraction import NewInstance
from simulation.flows import World, expected
from simulation.hosts import GoneError, SimulatedHost

_SECONDS = 15.0  # for one try of a call
ANYTHING = CreationPolicy(frozenset())
ONCE = CreationPolicy(LIVE | TERMINAL)  # a try that comes late, when the instance has ended, does not begin it anew

Scenario = Callable[["Client", str], Awaitable[None]]


@dataclass
class Client:
    """Somebody who calls whichever host answers."""

    hosts: Sequence[SimulatedHost]
    world: World
    chance: random.Random
    told: Callable[[str, str], None]
    acknowledged: Callable[[str, str], None]
    now: Callable[[], int]
    calls: int = 0

    async def ask(self, work: Callable[[HubRuntime], Awaitable[Any]], seconds: float = _SECONDS) -> tuple[Any, bool]:
        """Call until there is an answer; return it, and whether an earlier try may have taken effect as well."""
        doubtful = False
        while True:
            up = [host for host in self.hosts if host.is_up]
            try:
                if up:
                    self.calls += 1
                    return await self.chance.choice(up).call(work, seconds), doubtful
            except (GoneError, OutcomeUnknownError):
                doubtful = True
            except UnavailableError:
                pass
            await asyncio.sleep(self.chance.uniform(0.1, 1.0))

    async def create(self, name: str, instance: str, given: Any, policy: CreationPolicy = ONCE,
                     start_at: int | None = None) -> bool:
        """Create an instance; return whether a try may still be under way that nobody waits for any more."""
        new = NewInstance(name, instance, json.dumps(given), policy=policy, start_at=start_at)
        before = self.calls

        async def tried(hub: HubRuntime) -> None:
            try:
                await hub.service.create(new)
            except AlreadyExistsError:
                if self.calls == before + 1:  # else an earlier try took effect, or a later one was faster
                    self.told("create", f"{instance}: exists already")

        doubtful = (await self.ask(tried))[1]
        self.acknowledged("created", instance)
        return doubtful

    async def tell(self, instance: str, word: Any) -> bool:
        """Raise an event; return whether it may have been raised more than once."""
        return (await self.ask(lambda hub: hub.service.raise_event(instance, "word", json.dumps(word))))[1]

    async def wait(self, instance: str) -> InstanceState:
        """Wait for the end of an instance."""
        return (await self.ask(lambda hub: hub.service.wait_for_completion(instance, payloads=True), 30.0))[0]

    async def rest(self, longest: float) -> None:
        await asyncio.sleep(self.chance.uniform(0.0, longest))

    def check(self, state: InstanceState, status: Status, output: Any) -> None:
        """Say so when an instance did not end as it should."""
        found = state.output if state.output is None or status is Status.TERMINATED else json.loads(state.output)
        if state.row.status is not status or found != output:
            details = state.row.failure
            self.told("output", f"{state.row.instance_id}: {state.row.status.name} {state.output!r} {details!r}, "
                                f"should be {status.name} {output!r}")


async def _runs(client: Client, instance: str, name: str, given: Any) -> bool:
    doubtful = await client.create(name, instance, given)
    client.check(await client.wait(instance), Status.COMPLETED, expected(name, given))
    return doubtful


def _simple(name: str, given: Any) -> Scenario:
    async def scenario(client: Client, instance: str) -> None:
        await _runs(client, instance, name, given)
    return scenario


def _hears(name: str, *, suspends: bool = False) -> Scenario:
    """Words come in the order in which they were told, each once."""
    async def scenario(client: Client, instance: str) -> None:
        await client.create(name, instance, [])
        if suspends:
            await client.ask(lambda hub: hub.service.suspend(instance, None))
        words, doubtful = list(range(9)), set()
        for word in words:
            if await client.tell(instance, word):
                doubtful.add(word)
            if client.chance.random() < 0.3:
                await client.rest(6.0)
        if suspends:
            await client.ask(lambda hub: hub.service.resume(instance, None))
        await client.tell(instance, "end")
        state = await client.wait(instance)
        heard = json.loads(state.output or "null")
        counts = Counter(heard or ())
        wrong = [word for word in words if not counts[word] or (counts[word] > 1 and word not in doubtful)]
        if state.row.status is not Status.COMPLETED or wrong or list(dict.fromkeys(heard)) != words:
            client.told("events", f"{instance}: {state.row.status.name}, heard {heard}")
    return scenario


async def _tells(client: Client, instance: str) -> None:
    """One orchestration tells another one."""
    await client.create("listener", instance, None)
    await client.create("teller", f"{instance}.teller", [instance, 0])
    client.check(await client.wait(instance), Status.COMPLETED, [0, 1, 2, 3])
    client.check(await client.wait(f"{instance}.teller"), Status.COMPLETED, "told")


def _hears_both(*, suspends: bool) -> Scenario:
    """What a client was told is there comes before what an orchestration says that was begun afterwards."""
    async def scenario(client: Client, instance: str) -> None:
        await client.create("listener", instance, None)
        if suspends:
            await client.ask(lambda hub: hub.service.suspend(instance, None))
        for word in range(8):
            await client.tell(instance, word)
        await client.create("teller", f"{instance}.teller", [instance, 8])
        if suspends:
            await client.wait(f"{instance}.teller")
            await client.ask(lambda hub: hub.service.resume(instance, None))
        state = await client.wait(instance)
        heard = list(dict.fromkeys(json.loads(state.output or "[]")))
        if heard != list(range(12)):
            client.told("events", f"{instance}: {state.row.status.name}, heard {state.output}")
    return scenario


async def _kills(client: Client, instance: str) -> None:
    """A termination ends an instance and what is below it."""
    await client.create("sleeper", instance, None)
    await client.rest(10.0)
    await client.ask(lambda hub: hub.service.terminate(instance, "enough", recursive=True))
    client.check(await client.wait(instance), Status.TERMINATED, "enough")


async def _moves(client: Client, instance: str) -> None:
    """Two locks, calls below them, work between the calls."""
    keys = client.chance.sample("abc", 2)
    await client.create("mover", instance, keys)
    client.check(await client.wait(instance), Status.COMPLETED, "moved")


async def _holds(client: Client, instance: str) -> None:
    """A lock goes with its holder: whoever comes next gets it."""
    keys = ["a", "b"]
    await client.create("holder", instance, keys)
    await client.rest(5.0)
    await client.ask(lambda hub: hub.service.terminate(instance, "enough", recursive=False))
    client.check(await client.wait(instance), Status.TERMINATED, "enough")
    await client.create("mover", f"{instance}.mover", keys)
    client.check(await client.wait(f"{instance}.mover"), Status.COMPLETED, "moved")


async def _mends(client: Client, instance: str) -> None:
    """A failed one begins again where it failed."""
    await client.create("fragile", instance, 5)
    client.check(await client.wait(instance), Status.FAILED, None)
    client.world.mended.add(instance)

    async def rewind(hub: HubRuntime) -> None:
        try:
            await hub.service.rewind(instance, None)
        except FailedPreconditionError:
            pass  # an earlier try took effect

    await client.ask(rewind)
    state = await client.wait(instance)
    client.check(state, Status.COMPLETED, expected("fragile", 5))


async def _purges(client: Client, instance: str) -> None:
    """A purged id begins anew."""
    doubtful = await _runs(client, instance, "family", 7)
    await client.ask(lambda hub: hub.service.purge([instance], recursive=True))
    if doubtful:
        return
    state, _ = await client.ask(lambda hub: hub.service.get(instance, payloads=False))
    if state is not None:
        client.told("purge", f"{instance}: is there after it was purged")
    await _runs(client, instance, "chain", 100)


async def _replaces(client: Client, instance: str) -> None:
    """A live one is replaced: nothing of what it asked for counts for its successor."""
    await client.create(client.chance.choice(["sleeper", "busy"]), instance, None)
    await client.rest(5.0)
    await client.create("fan", instance, 50, ANYTHING)
    client.check(await client.wait(instance), Status.COMPLETED, expected("fan", 50))
    await client.ask(lambda hub: hub.service.terminate(f"{instance}.child", "enough", recursive=True))


async def _schedules(client: Client, instance: str) -> None:
    """A start that is not due yet."""
    due = client.now() + 8_000_000
    await client.create("chain", instance, 1, start_at=due)
    client.check(await client.wait(instance), Status.COMPLETED, 4)
    if client.now() < due - 500_000:
        client.told("timer", f"{instance}: it started too early")


SCENARIOS: dict[str, Scenario] = {
    "chain": _simple("chain", 3), "fan": _simple("fan", 10), "nap": _simple("nap", 20.0), "family": _simple("family", 2),
    "periodic": _simple("periodic", 0), "stubborn": _simple("stubborn", 8), "listener": _hears("listener"),
    "suspended": _hears("listener", suspends=True), "counter": _hears("counter"), "teller": _tells,
    "crowded": _hears_both(suspends=False), "crammed": _hears_both(suspends=True), "sleeper": _kills,
    "mover": _moves, "holder": _holds, "fragile": _mends, "purged": _purges, "replaced": _replaces,
    "scheduled": _schedules,
}
