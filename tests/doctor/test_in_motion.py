"""A doctor that looks again and again while a server works: no false alarm, also with locks, children and continuations."""

from __future__ import annotations

import asyncio

from doctor.examining import examine, problems
from durabletask_sql.demo.shapes import EVENT, SHAPES, Counter, step
from hubs import Hub
from server import ServerProcess

WAVES = 6
"""How often the doctor looks at running work: another wave has just begun, and its listeners wait, however fast the rest is."""

COUNT = 8
"""Orchestrations of each shape in a wave."""


def test_a_hub_under_load_is_as_promised_whenever_it_is_examined(database_url, tmp_path):
    server = ServerProcess(database_url, tmp_path / "server.log").start()
    hub = Hub(server)
    with hub.worker(*(shape.function for shape in SHAPES.values())) as worker, hub.client() as client:
        worker.stop()  # what it knows is not complete: its activity and its entity have names of their own
        worker.add_activity(step)
        worker.add_entity(Counter, name="counter")
        worker.start()
        started: list[tuple[str, int, str]] = []
        asleep: list[tuple[str, int]] = []

        def wake() -> None:
            while asleep:
                found, number = asleep.pop()
                client.raise_orchestration_event(found, EVENT, data=number)

        def look() -> int:
            report = asyncio.run(examine(database_url, pause=asyncio.sleep))
            assert problems(report) == {}
            return report.instances

        for _ in range(WAVES):
            wake()
            for number in range(COUNT):
                for name in SHAPES:
                    started.append((name, number, client.schedule_new_orchestration(name, input=number)))
                    if name == "listener":
                        asleep.append((started[-1][2], number))
            assert look() >= len(started)
        wake()
        for name, number, found in started:
            state = client.wait_for_orchestration_completion(found, timeout=60)
            assert SHAPES[name].is_right(number, state.serialized_output), state
        assert look() >= len(started)
    assert server.stop() == 0
