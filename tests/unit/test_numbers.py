"""Numbers that others rely on: statuses and status codes as SDKs read them, and how long work waits that came back."""

from __future__ import annotations

import grpc
import pytest

from durabletask_sql import errors
from durabletask_sql.dispatch.delays import delay_seconds
from durabletask_sql.model.status import LIVE, TERMINAL, Status
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.sidecar.errors import status_of


def test_statuses_have_the_numbers_of_the_protocol():
    prefix = "ORCHESTRATION_STATUS_"
    assert {status.name: status.value for status in Status} == {
        name.removeprefix(prefix): number for name, number in pb.OrchestrationStatus.items()}
    assert [status.value for status in (Status.RUNNING, Status.PENDING, Status.SUSPENDED)] == [0, 6, 7]
    assert set(Status) - {Status.CONTINUED_AS_NEW} == TERMINAL | LIVE


@pytest.mark.parametrize(("kind", "code"), [
    (errors.InvalidArgumentError, "INVALID_ARGUMENT"), (errors.AlreadyExistsError, "ALREADY_EXISTS"),
    (errors.NotFoundError, "NOT_FOUND"), (errors.FailedPreconditionError, "FAILED_PRECONDITION"),
    (errors.PermissionDeniedError, "PERMISSION_DENIED"), (errors.UnavailableError, "UNAVAILABLE"),
    (errors.OutcomeUnknownError, "ABORTED"), (RuntimeError, "INTERNAL")])
def test_each_error_has_the_code_that_sdks_tell_apart(kind, code):
    found, text = status_of(kind("what is wrong"))
    assert found is grpc.StatusCode[code]
    assert text == "what is wrong" or code == "INTERNAL"


def test_what_was_given_back_waits_a_second_and_twice_as_long_each_time_up_to_a_minute():
    assert [delay_seconds(times) for times in range(1, 10)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
