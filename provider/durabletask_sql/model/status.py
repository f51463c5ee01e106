"""The statuses of an instance. The numbers are the wire's and are stored as they are (S-019)."""

from enum import IntEnum


class Status(IntEnum):
    """The status of an orchestration instance."""

    RUNNING = 0
    COMPLETED = 1
    CONTINUED_AS_NEW = 2
    FAILED = 3
    CANCELED = 4
    TERMINATED = 5
    PENDING = 6
    SUSPENDED = 7

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can happen to the instance any more."""
        return self in TERMINAL


TERMINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELED, Status.TERMINATED})
LIVE = frozenset({Status.PENDING, Status.RUNNING, Status.SUSPENDED})
