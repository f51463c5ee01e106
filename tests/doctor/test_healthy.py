"""Hubs in every state that is legal, at rest and in motion: the doctor finds nothing wrong with them."""

from __future__ import annotations

import asyncio

from dispatch.bench import Worker, on_bench, schedule
from doctor.examining import examine, notes, problems
from durabletask_sql.protocol import taskhub_pb2 as pb
from semantics.acts import FAILED, again, child, end, soon, text, timer


def entity(number, **message):
    return pb.OrchestratorAction(id=number, sendEntityMessage=pb.SendEntityMessageAction(**message))


def guid(number):
    return f"00000000-0000-0000-0000-{number:012d}"


def lock(number, section, *entities):
    return entity(number, entityLockRequested=pb.EntityLockRequestedEvent(
        criticalSectionId=section, lockSet=entities, position=0))


def call(number, target):
    return entity(number, entityOperationCalled=pb.EntityOperationCalledEvent(
        requestId=guid(number), operation="get", targetInstanceId=text(target)))


async def in_many_states(bench, worker):
    """Leave instances behind in every way in which one can wait."""
    async def begin(instance_id, *actions, **fields):
        await bench.start("flow", instance_id, **fields)
        item = await worker.turn()
        assert item.key.instance_id == instance_id
        await bench.answer(item, *actions)

    await begin("activity", *schedule("act", "other"))
    await bench.result(await worker.activity())
    await bench.answer(await worker.turn())
    await begin("timer", timer(1, soon(500)))
    await begin("children", child("below", number=1), child("forgotten", number=2, tags={"FireAndForget": ""}))
    for _ in range(2):
        await bench.answer(await worker.turn())
    await begin("listening")
    await begin("ended", end(result="x" * 200_000))
    await begin("failed", end(FAILED))
    await begin("locked", lock(1, "first", "@counter@one", "@counter@two"))
    await bench.answer(await worker.turn())
    await begin("queued", lock(1, "second", "@counter@two"))
    await begin("calling", call(1, "@counter@one"))
    await begin("anew", again("y" * 100_000))
    await bench.answer(await worker.turn(), *schedule("later", text="z" * 100_000))
    await begin("suspended", *schedule("act"))
    await bench.service.suspend("suspended", None)
    await bench.answer(await worker.turn())
    await bench.start("flow", "scheduled", start_at=int((soon(500)).ToMicroseconds()))
    await bench.service.raise_event("listening", "noise", None)
    await bench.answer(await worker.turn())


def test_a_hub_in_all_states_is_as_promised_while_it_is_served_and_after(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await in_many_states(bench, worker)
        report = await examine(database_url)
        assert problems(report) == {}
        assert report.instances == 14
        assert {name for _, name in notes(report)} == {"below", "forgotten", "listening", "locked"}

    on_bench(database_url, test)
    report = asyncio.run(examine(database_url))
    assert problems(report) == {}
    assert ("leases", "task hub default") in notes(report)
