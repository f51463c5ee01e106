"""Versions and trace contexts from the client to whoever runs the work, and back (S-005, S-103, section 17 of the wire)."""

from __future__ import annotations

import pytest

from dispatch.bench import Worker, on_bench, schedule
from durabletask_sql.model.queries import InstanceQuery
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.assembly import activity_request, orchestrator_request
from semantics.acts import again, child, end, past, start_of


def trace(number):
    return pb.TraceContext(traceParent=f"00-{number:032x}-{number:016x}-01", traceState={"value": f"s={number}"})


def request_of(item):
    """The turn as it goes over the wire."""
    return pb.OrchestratorRequest.FromString(orchestrator_request(
        item.key.instance_id, item.execution_id, item.past, item.new_events, item.trace))


@pytest.mark.parametrize("version", [None, "", "1.0"])
def test_a_version_is_kept_as_it_was_sent_on_history_instance_and_queries(database_url, version):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one", version=version)
        item = await worker.turn()
        assert start_of(item).HasField("version") is (version is not None)
        assert start_of(item).version.value == (version or "")
        assert (await bench.service.get("one", payloads=False)).row.version == version
        page = await bench.service.query(InstanceQuery())
        assert [state.row.version for state in page.states] == [version]
        await bench.answer(item)
        await bench.service.raise_event("one", "go", None)
        assert start_of(await worker.turn()).HasField("version") is (version is not None)

    on_bench(database_url, test)


@pytest.mark.parametrize("version", [None, "", "2.0"])
def test_an_activity_is_sent_with_the_version_of_its_action(database_url, version):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one", version="1.0")
        await bench.answer(await worker.turn(), *schedule("act", version=version))
        row = (await worker.activity()).row
        sent = pb.ActivityRequest.FromString(activity_request("one", row.execution_id, row.event))
        assert sent.HasField("version") is (version is not None)
        assert sent.version.value == (version or "")

    on_bench(database_url, test)


def test_a_trace_goes_from_the_client_to_the_orchestration_its_activities_and_children(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one", trace=trace(1))
        item = await worker.turn()
        assert start_of(item).parentTraceContext == trace(1)
        action = schedule("act")[0]
        action.scheduleTask.parentTraceContext.CopyFrom(trace(2))
        await bench.answer(item, action, child("below", number=1, parentTraceContext=trace(3)))
        activity, below = await worker.activity(), await worker.turn()
        sent = pb.ActivityRequest.FromString(activity_request("one", activity.row.execution_id, activity.row.event))
        assert sent.parentTraceContext == trace(2)
        assert start_of(below).parentTraceContext == trace(3)
        await bench.result(activity)
        recorded = {event.WhichOneof("eventType"): event for event in past(await worker.turn())}
        assert recorded["taskScheduled"].taskScheduled.parentTraceContext == trace(2)
        made = recorded["subOrchestrationInstanceCreated"]
        assert made.subOrchestrationInstanceCreated.parentTraceContext == trace(3)
        assert recorded["taskScheduled"].timestamp.seconds > 1_000_000

    on_bench(database_url, test)


def test_an_orchestrations_span_comes_back_with_each_turn_until_it_continues_as_new(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        item = await worker.turn()
        assert not request_of(item).HasField("orchestrationTraceContext")
        for actions in ((), (again("next"),)):
            await bench.board.complete_turn(pb.OrchestratorResponse(
                instanceId="one", completionToken=item.token, actions=actions,
                orchestrationTraceContext={"spanID": {"value": "span"}, "spanStartTime": {"seconds": 5}}))
            if not actions:
                await bench.service.raise_event("one", "go", None)
                item = await worker.turn()
                found = request_of(item).orchestrationTraceContext
                assert (found.spanID.value, found.spanStartTime.seconds) == ("span", 5)
        item = await worker.turn()
        assert not request_of(item).HasField("orchestrationTraceContext")
        await bench.answer(item, end())

    on_bench(database_url, test)


def test_a_span_that_an_answer_leaves_out_is_kept(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        item = await worker.turn()
        await bench.board.complete_turn(pb.OrchestratorResponse(
            instanceId="one", completionToken=item.token, orchestrationTraceContext={"spanID": {"value": "span"}}))
        for _ in range(2):
            await bench.service.raise_event("one", "go", None)
            item = await worker.turn()
            assert request_of(item).orchestrationTraceContext.spanID.value == "span"
            await bench.answer(item)

    on_bench(database_url, test)
