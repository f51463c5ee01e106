"""A doctor that looks again and again while a server works: no false alarm, also with locks, children and continuations."""

from __future__ import annotations

import asyncio

from doctor.examining import examine, problems
from durabletask_sql.demo.shapes import EVENT, SHAPES, Counter, step
from hubs import Hub
from server import ServerProcess

COUNT = 140


def test_a_hub_under_load_is_as_promised_whenever_it_is_examined(database_url, tmp_path):
    server = ServerProcess(database_url, tmp_path / "server.log").start()
    hub = Hub(server)
    with hub.worker(*(shape.function for shape in SHAPES.values())) as worker, hub.client() as client:
        worker.stop()  # what it knows is not complete: its activity and its entity have names of their own
        worker.add_activity(step)
        worker.add_entity(Counter, name="counter")
        worker.start()
        ids, listeners = [], []
        for number in range(COUNT):
            name = list(SHAPES)[number % len(SHAPES)]
            ids.append((name, number, client.schedule_new_orchestration(name, input=number)))
            if name == "listener":
                listeners.append((ids[-1][2], number))
        looks = 0
        while True:
            report = asyncio.run(examine(database_url, pause=asyncio.sleep))
            assert problems(report) == {}
            looks += 1
            for found, number in listeners:  # they have waited, however fast all others were, and run while it looks again
                client.raise_orchestration_event(found, EVENT, data=number)
            listeners.clear()
            if not any(status.runtime_status.name in ("RUNNING", "PENDING") for status in (
                    client.get_orchestration_state(found) for _, _, found in ids)):
                break
        for name, number, found in ids:
            state = client.get_orchestration_state(found)
            assert SHAPES[name].is_right(number, state.serialized_output), state
    assert looks >= 2
    assert report.instances >= COUNT
    assert server.stop() == 0
