"""The SDK's history export, which is an entity, an orchestration, and the list of ended instances."""

from __future__ import annotations

import gzip
import json
import threading
from datetime import UTC, datetime, timedelta

from durabletask.client import OrchestrationStatus
from durabletask.extensions.history_export import (
    ExportDestination,
    ExportFormat,
    ExportFormatKind,
    ExportHistoryClient,
    ExportJobCreationOptions,
    ExportJobStatus,
    ExportMode,
)

from sdk.test_entities import eventually


class Shelf:
    """A writer that keeps what it is given."""

    def __init__(self):
        self.files = {}
        self._lock = threading.Lock()

    def write(self, *, instance_id, container, blob_name, payload, content_encoding, **_):
        with self._lock:
            self.files[instance_id] = (container, blob_name, payload, content_encoding)


def do_add(_, number):
    return number + 1


def sum_up(ctx, number):
    return (yield ctx.call_activity(do_add, input=number))


def test_ended_histories_are_exported_in_pages_and_the_job_says_so(hub, fresh_id):
    began = datetime.now(UTC) - timedelta(seconds=1)
    shelf, job_id = Shelf(), fresh_id("job")
    with hub.client() as client:
        export = ExportHistoryClient(client, shelf)
        with hub.worker(do_add, sum_up) as worker:
            ids = [client.schedule_new_orchestration(sum_up, instance_id=fresh_id("exported"), input=n) for n in range(7)]
            for instance_id in ids:
                assert client.wait_for_orchestration_completion(
                    instance_id, timeout=30).runtime_status == OrchestrationStatus.COMPLETED
            worker.stop()
            export.register_worker(worker)
            worker.start()
            export.create_job(ExportJobCreationOptions(
                mode=ExportMode.BATCH, completed_time_from=began, completed_time_to=datetime.now(UTC),
                destination=ExportDestination(container="shelf", prefix="p"), max_instances_per_batch=3,
                format=ExportFormat(kind=ExportFormatKind.JSONL_GZIP)), job_id=job_id)
            job = export.wait_for_job(job_id, timeout=60, poll_interval=0.1)
            assert job.status == ExportJobStatus.COMPLETED, job
            assert job.exported_instances >= len(ids)
            assert set(ids) <= set(shelf.files)
            container, name, payload, encoding = shelf.files[ids[0]]
            lines = [json.loads(line) for line in gzip.decompress(payload).splitlines()]
            assert (container, name.startswith("p/"), encoding) == ("shelf", True, "gzip")
            assert any("TaskCompleted" in json.dumps(line) for line in lines)
            assert job_id in [one.job_id for one in export.list_jobs()]
            export.delete_job(job_id)
            eventually(lambda: export.get_job(job_id), None)  # a signal, which nothing in delete_job waits for
