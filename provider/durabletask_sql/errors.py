"""The errors that this project raises on purpose.

Each names the thing, the value and what to do next. The gRPC edge maps them to status codes and the command line to
one sentence and an exit code; anything else that reaches those places is a bug.
"""


class DurableTaskSqlError(Exception):
    """Base of every error that this project raises on purpose."""


class InvalidArgumentError(DurableTaskSqlError):
    """The caller sent something that can never be accepted; nothing was changed."""


class AlreadyExistsError(DurableTaskSqlError):
    """An instance with that id exists in a status that refuses a second creation."""


class NotFoundError(DurableTaskSqlError):
    """The thing that was asked for does not exist."""


class FailedPreconditionError(DurableTaskSqlError):
    """The thing exists, but not in a state that allows what was asked."""


class PermissionDeniedError(DurableTaskSqlError):
    """A setting of the server does not allow this."""


class UnavailableError(DurableTaskSqlError):
    """The database cannot be reached or is locked; nothing was changed and the call may be repeated."""


class OutcomeUnknownError(DurableTaskSqlError):
    """The connection was lost during COMMIT and it cannot be told whether it took effect."""


class SettingsError(DurableTaskSqlError):
    """A setting, an option or an environment variable has a value that cannot be used."""


class SchemaError(DurableTaskSqlError):
    """The database's schema is missing, older or newer than this program needs."""


class MalformedFrameError(DurableTaskSqlError):
    """Stored or received bytes are not a sequence of framed history events."""


class PartitionLostError(DurableTaskSqlError):
    """A partition is owned by another host, or under another epoch, than the caller believed."""


class LoopEndedError(DurableTaskSqlError):
    """A part of a host that has to run for as long as the host does has ended, by a bug: the host has to stop."""


class InvalidCompletionError(DurableTaskSqlError):
    """A worker's answer to a work item cannot be carried out (it breaks the protocol or a limit)."""
