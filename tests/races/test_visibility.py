"""I4 when messages become visible in another order than they were numbered, while the owner commits and is replaced.

Sequences are handed out before commits: a message may appear below those that its owner has long taken. Sessions that
are held open write past the owner; scripts of what happens in which order are drawn.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatch.bench import Bench, HandClock, Worker
from durabletask_sql.dispatch import dispatcher
from durabletask_sql.host import Host
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.protocol import events
from durabletask_sql.protocol.framing import frame, iter_events
from durabletask_sql.settings import Settings
from durabletask_sql.storage.dialect import PostgresCompiler
from durabletask_sql.storage.instances import SEND
from durabletask_sql.storage.postgres import PostgresSession
from postgres import create_database

SESSIONS = 3
KEY = InstanceKey(0, "ear")
EVENT = 1  # the kind of such a message
_ids = itertools.count()


@dataclass
class Sent:
    """A message: when it was submitted and, once it is, when its commit was acknowledged, counted in steps."""

    name: str
    submitted: int
    acknowledged: int | None = None


@dataclass
class Stage:
    """Two hosts, of which one owns the instance, and sessions that write past both."""

    url: str
    benches: list[Bench]
    hub_id: int
    step: int = 0
    owner: int = 0
    committed: list[Sent] = field(default_factory=list)

    def __post_init__(self):
        self.sessions = [PostgresSession(self.url, PostgresCompiler(), shown="test", idle_timeout_ms=60_000, allow_unsafe=True)
                         for _ in range(SESSIONS)]
        self.open: list[list[Sent]] = [[] for _ in range(SESSIONS)]

    async def insert(self, number):
        """Give a message its sequence, in a transaction that goes on."""
        if not self.open[number]:
            self.sessions[number].begin()
        sent = Sent(f"{number}-{next(_ids)}", self.step)
        assert self.sessions[number].ask(
            SEND, [(*KEY, None, EVENT, frame(events.event_raised(1, sent.name, None)))], hub=self.hub_id, held=0)
        self.open[number].append(sent)

    async def commit(self, number):
        if self.open[number]:
            self.sessions[number].commit()
            self._acknowledge(self.open[number])
            self.open[number] = []

    async def rollback(self, number):
        self.sessions[number].rollback()
        self.open[number] = []

    async def client(self, number):
        """Send through a host: the owner, or another one."""
        sent = Sent(f"client-{next(_ids)}", self.step)
        await self.benches[number % 2].service.raise_event("ear", sent.name, None)
        self._acknowledge([sent])

    def _acknowledge(self, messages):
        for sent in messages:
            sent.acknowledged = self.step
        self.committed += messages

    async def recover(self, number):
        """Raise the epoch, as after an unknown outcome."""
        del number
        self.benches[self.owner].runtime.dispatcher._owner.lose_ownership()

    async def move(self, number):
        """The other host takes the partition, and neither was asked."""
        del number
        self.owner = 1 - self.owner
        taker = self.benches[self.owner].runtime.dispatcher
        with psycopg.connect(self.url) as connection:
            connection.execute("UPDATE partitions SET owner = %s, epoch = epoch + 1, next_owner = 0", (taker._host_id,))
        for bench in self.benches:
            bench.runtime.dispatcher._ownership.nudge()

    async def pause(self, number):
        await asyncio.sleep(0.004 * number)

    async def received(self):
        parts = [part async for part in self.benches[0].service.history("ear", None)]
        return [event.eventRaised.name for part in parts for event in iter_events(part) if event.HasField("eventRaised")]

    async def check(self):
        for number in range(SESSIONS):
            await self.commit(number)
            self.sessions[number].close()
        names = [sent.name for sent in self.committed]
        async with asyncio.timeout(20):
            while len(found := await self.received()) < len(names):
                await asyncio.sleep(0.02)
        assert sorted(found) == sorted(names)
        place = {name: at for at, name in enumerate(found)}
        for one, other in itertools.permutations(self.committed, 2):
            if one.acknowledged < other.submitted:
                assert place[one.name] < place[other.name], (one, other)
        for number in range(SESSIONS):  # within a transaction, and from one to the next of a session
            own = [place[sent.name] for sent in self.committed if sent.name.startswith(f"{number}-")]
            assert own == sorted(own)


async def answer(bench, worker):
    """Commit every turn with nothing."""
    while True:
        item = await worker.turns.get()
        await bench.answer(item)


async def play(url, script):
    hosts, tasks = [], []
    try:
        for _ in range(2):
            hosts.append(await Host.open(Settings(database=url, upgrade=True, partitions=1)))
            await hosts[-1].start()
        benches = [Bench(host.hubs["default"], HandClock()) for host in hosts]
        tasks = [asyncio.create_task(answer(bench, bench.connect(Worker()))) for bench in benches]
        await benches[0].start("flow", "ear")
        stage = Stage(url, benches, benches[0].runtime.hub.hub_id)
        for stage.step, (what, number) in enumerate(script, 1):
            await getattr(stage, what)(number)
        await stage.check()
    finally:
        for task in tasks:
            task.cancel()
        for host in hosts:
            await host.stop()


STEPS = st.tuples(st.sampled_from(["insert", "insert", "commit", "commit", "client", "pause", "pause", "rollback", "recover",
                                   "move"]), st.integers(0, SESSIONS - 1))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What nobody tells of is found soon, so that its order counts and not the poll."""
    monkeypatch.setattr(dispatcher, "_LAST_POLL_SECONDS", 0.05)
    monkeypatch.setattr(dispatcher, "_RARE_POLL_SECONDS", 0.05)


@pytest.mark.parametrize("between", [[], [("recover", 0)], [("move", 0)], [("move", 0), ("pause", 2), ("move", 0)]],
                         ids=["nothing", "a new epoch", "another owner", "another owner and back"])
def test_a_message_that_is_committed_after_a_later_one_is_not_missed(postgres_url, between):
    """The first takes its sequence first and commits last, while the owner's groups pass over its place."""
    passing = [step for _ in range(4) for step in (("client", 0), ("pause", 1), ("client", 1))]
    asyncio.run(play(postgres_url, [
        ("insert", 0), ("insert", 1), ("commit", 1), ("pause", 2), *passing, *between, *passing, ("insert", 0), ("commit", 0),
        ("pause", 1), ("client", 0), ("insert", 1), ("commit", 1)]))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(script=st.lists(STEPS, min_size=8, max_size=40))
def test_whatever_the_order_nothing_is_missed_doubled_or_reordered(postgres_server, script):
    asyncio.run(play(create_database(postgres_server), script))
