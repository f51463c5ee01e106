"""The gRPC server: every RPC of the protocol, on its addresses."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import grpc
import grpc.aio
from google.protobuf.empty_pb2 import Empty

from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.settings import Settings
from durabletask_sql.sidecar import work
from durabletask_sql.sidecar.binding import bind
from durabletask_sql.sidecar.calls import Context, ServedHub, unary
from durabletask_sql.sidecar.clients import ClientMethods
from durabletask_sql.sidecar.entities import EntityMethods
from durabletask_sql.sidecar.management import ManagementMethods
from durabletask_sql.sidecar.polling import events_in_bulk
from durabletask_sql.sidecar.streams import Streams

SERVICE = "TaskHubSidecarService"
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the same port must fail, not share it
    ("grpc.max_receive_message_length", -1),  # payloads are checked, with a better answer than the transport's; a
    # worker's answer may hold many of them, and one that the transport refuses would be sent again and again
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)


class Server:
    """Serves task hubs on the addresses of the settings."""

    def __init__(self, hubs: Mapping[str, ServedHub], settings: Settings) -> None:
        """Prepare the server; nothing listens before `start`."""
        self._settings = settings
        self._streams = Streams(hubs, ping_seconds=settings.ping_seconds, default_slots=settings.default_slots)
        with events_in_bulk(asyncio.get_running_loop()):
            self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, handlers(hubs, settings, self._streams)),))

    async def start(self) -> tuple[str, ...]:
        """Listen, and return the addresses. Raises SettingsError when a port is taken."""
        bound = bind(self._server, self._settings.listen)
        await self._server.start()
        return bound

    def end_streams(self) -> None:
        """End the workers' streams; calls go on."""
        self._streams.close()

    async def stop(self, grace: float) -> None:
        """Take no new calls, let running ones finish for so many seconds, then cut them."""
        await self._server.stop(grace)


def handlers(hubs: Mapping[str, ServedHub], settings: Settings, streams: Streams
             ) -> "dict[str, grpc.RpcMethodHandler[bytes, bytes]]":
    """Return a handler for every RPC; an RPC without one would be a bug."""
    clients = ClientMethods(settings.limits)
    wrapped = {
        **_management(hubs, ManagementMethods(settings.limits)), **_entities(hubs, EntityMethods(settings.limits)),
        "Hello": unary(hubs, "Hello", Empty, clients.hello),
        "StartInstance": unary(hubs, "StartInstance", pb.CreateInstanceRequest, clients.start_instance),
        "GetInstance": unary(hubs, "GetInstance", pb.GetInstanceRequest, clients.get_instance),
        "WaitForInstanceStart": unary(
            hubs, "WaitForInstanceStart", pb.GetInstanceRequest, clients.wait_for_instance_start),
        "WaitForInstanceCompletion": unary(
            hubs, "WaitForInstanceCompletion", pb.GetInstanceRequest, clients.wait_for_instance_completion),
        "RaiseEvent": unary(hubs, "RaiseEvent", pb.RaiseEventRequest, clients.raise_event),
        "TerminateInstance": unary(hubs, "TerminateInstance", pb.TerminateRequest, clients.terminate_instance),
        "SuspendInstance": unary(hubs, "SuspendInstance", pb.SuspendRequest, clients.suspend_instance),
        "ResumeInstance": unary(hubs, "ResumeInstance", pb.ResumeRequest, clients.resume_instance),
        "QueryInstances": unary(hubs, "QueryInstances", pb.QueryInstancesRequest, clients.query_instances),
        "CompleteOrchestratorTask": unary(
            hubs, "CompleteOrchestratorTask", pb.OrchestratorResponse, work.complete_orchestrator_task),
        "CompleteActivityTask": unary(
            hubs, "CompleteActivityTask", pb.ActivityResponse, work.complete_activity_task),
        "AbandonTaskOrchestratorWorkItem": unary(
            hubs, "AbandonTaskOrchestratorWorkItem", pb.AbandonOrchestrationTaskRequest, work.abandon_orchestrator),
        "AbandonTaskActivityWorkItem": unary(
            hubs, "AbandonTaskActivityWorkItem", pb.AbandonActivityTaskRequest, work.abandon_activity),
    }
    found = {name: grpc.unary_unary_rpc_method_handler(handle) for name, handle in wrapped.items()}
    found["GetWorkItems"] = grpc.unary_stream_rpc_method_handler(streams.get_work_items)
    found["StreamInstanceHistory"] = grpc.unary_stream_rpc_method_handler(streams.stream_instance_history)
    assert set(found) == {method.name for method in pb.DESCRIPTOR.services_by_name[SERVICE].methods}
    return found


def _management(hubs: Mapping[str, ServedHub], methods: ManagementMethods
                ) -> dict[str, Callable[[bytes, Context], Awaitable[bytes]]]:
    return {
        "ListInstanceIds": unary(hubs, "ListInstanceIds", pb.ListInstanceIdsRequest, methods.list_instance_ids),
        "RestartInstance": unary(hubs, "RestartInstance", pb.RestartInstanceRequest, methods.restart_instance),
        "RewindInstance": unary(hubs, "RewindInstance", pb.RewindInstanceRequest, methods.rewind_instance),
        "PurgeInstances": unary(hubs, "PurgeInstances", pb.PurgeInstancesRequest, methods.purge_instances),
        "CreateTaskHub": unary(hubs, "CreateTaskHub", pb.CreateTaskHubRequest, methods.create_task_hub),
        "DeleteTaskHub": unary(hubs, "DeleteTaskHub", pb.DeleteTaskHubRequest, methods.delete_task_hub),
        "SkipGracefulOrchestrationTerminations": unary(
            hubs, "SkipGracefulOrchestrationTerminations", pb.SkipGracefulOrchestrationTerminationsRequest,
            methods.skip_graceful_orchestration_terminations),
    }


def _entities(hubs: Mapping[str, ServedHub], methods: EntityMethods
              ) -> dict[str, Callable[[bytes, Context], Awaitable[bytes]]]:
    return {
        "SignalEntity": unary(hubs, "SignalEntity", pb.SignalEntityRequest, methods.signal_entity),
        "GetEntity": unary(hubs, "GetEntity", pb.GetEntityRequest, methods.get_entity),
        "QueryEntities": unary(hubs, "QueryEntities", pb.QueryEntitiesRequest, methods.query_entities),
        "CleanEntityStorage": unary(
            hubs, "CleanEntityStorage", pb.CleanEntityStorageRequest, methods.clean_entity_storage),
        "CompleteEntityTask": unary(hubs, "CompleteEntityTask", pb.EntityBatchResult, work.complete_entity_task),
        "AbandonTaskEntityWorkItem": unary(
            hubs, "AbandonTaskEntityWorkItem", pb.AbandonEntityTaskRequest, work.abandon_entity),
    }
