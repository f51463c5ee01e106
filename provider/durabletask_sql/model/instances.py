"""An orchestration instance as its row says it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from durabletask_sql.model.status import Status


class InstanceKey(NamedTuple):
    """Where an instance lives inside a task hub: its partition (a function of the id) and its id."""

    partition: int
    instance_id: str


@dataclass(frozen=True, slots=True)
class ParentLink:
    """The execution that started a sub-orchestration and waits for its result."""

    instance_id: str
    execution_id: str
    task_scheduled_id: int
    name: str
    version: str | None


class CriticalSection(NamedTuple):
    """A critical section that an execution has asked for and not left: the entities that it has not unlocked yet.

    `granted` once the execution has been told that it holds all of their locks.
    """

    section_id: str
    entities: tuple[str, ...]
    granted: bool = False


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """The row of `instances`, without input and output, which live in `payloads`.

    Times are microseconds since 1970 UTC. `row_version` is the fence of turns: it rises with each turn commit,
    re-creation, terminate of a pending instance, purge and rewind, and with nothing else. `history_count` is the
    number of events in the history of the current execution, and so the next sequence. `failure` and `trace` are
    serialized TaskFailureDetails and OrchestrationTraceContext. `rewinds` counts how often this execution's history
    was rewound: it then holds ExecutionRewound events, which workers must not see. `sections` are its open critical
    sections; none is left once it has ended.
    """

    partition: int
    instance_id: str
    execution_id: str
    generation: int
    row_version: int
    name: str
    version: str | None
    status: Status
    created_at: int
    updated_at: int
    completed_at: int | None = None
    scheduled_at: int | None = None
    history_count: int = 0
    last_turn_at: int = 0
    custom_status: str | None = None
    failure: bytes | None = None
    parent: ParentLink | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    trace: bytes | None = None
    rewinds: int = 0
    sections: tuple[CriticalSection, ...] = ()

    @property
    def key(self) -> InstanceKey:
        """Where the instance lives."""
        return InstanceKey(self.partition, self.instance_id)

    def is_addressed_by(self, execution_id: str | None) -> bool:
        """Tell whether a message that names this execution (None: whichever runs) is for the one that runs.

        It names that one, or the one that started it: what a parent's end sends is for its children alone, not for
        what happens to have the id that it asked for. Execution ids are unique.
        """
        parent = self.parent.execution_id if self.parent is not None else None
        return execution_id in (None, self.execution_id, parent)


@dataclass(frozen=True, slots=True)
class InstanceState:
    """What queries return: the row, and the payloads when they were asked for."""

    row: InstanceRow
    input: str | None = None
    output: str | None = None
