"""This project's errors as gRPC status codes. Nothing leaves the server as UNKNOWN."""

import grpc

from durabletask_sql.errors import (
    AlreadyExistsError,
    DurableTaskSqlError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    UnavailableError,
)

_CODES: dict[type[DurableTaskSqlError], grpc.StatusCode] = {
    InvalidArgumentError: grpc.StatusCode.INVALID_ARGUMENT,
    AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    FailedPreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    OutcomeUnknownError: grpc.StatusCode.ABORTED,
}

# gRPC drops an answer whose headers are too large; there each byte of a text may take three.
_LONGEST_TEXT = 2_000


def status_of(error: BaseException) -> tuple[grpc.StatusCode, str]:
    """Return the status code and the text for a caller."""
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code, _shortened(str(error))
    return grpc.StatusCode.INTERNAL, "the server failed on this call by a bug of its own; its log says more"


def _shortened(text: str) -> str:
    """Return a text that fits into an answer's headers: what was wrong may have been quoted at any length."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= _LONGEST_TEXT:
        return text
    return encoded[:_LONGEST_TEXT].decode(errors="ignore") + "..."
