"""What the owner of a partition asks the store to commit: items of a group, each with its own fence.

An item either takes effect whole, with the rest of its group, or not at all.
"""

from dataclasses import dataclass
from enum import Enum

from durabletask_sql.model.entities import EntityRow
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.messages import NewActivity, NewMessage, NewTimer
from durabletask_sql.model.payloads import PackedTurn


@dataclass(frozen=True, slots=True)
class HistoryAppend:
    """The events of one turn: one row of `history`. `events` is a framed list."""

    execution_id: str
    first_sequence: int
    count: int
    events: bytes


@dataclass(frozen=True, slots=True)
class NewChild:
    """An orchestration to create in the transaction of the turn or batch that starts it.

    `row` is the row of a child whose id is free; when the id belongs to an ended instance that one is replaced and
    `row` is adapted (its version continues the old one's). `refusal` goes to the parent instead when the id belongs
    to a live instance (S-102; None: nobody is told). `start` is the child's start message; it goes into `timers` when
    `row.scheduled_at` is set.
    """

    row: InstanceRow
    input: str | None
    start: NewMessage
    refusal: NewMessage | None


@dataclass(frozen=True, slots=True)
class TurnCheckpoint:
    """The outcome of one turn of one instance.

    `row` is the row after the turn, with `row_version` one above `expected_version`, the fence. `consumed` and
    `consumed_timers` are sequences that must all still be there; `discarded` are rows of older executions, which may
    be gone. `ended` sweeps the instance's messages, timers; `continued_from` names the execution whose history,
    timers and payloads go because of continue-as-new. `drop_unclaimed` also deletes its unclaimed activity tasks.
    `packed` is what the store makes of its texts, if that was done ahead of the commit. `if_recursive` are messages that
    are sent too if a termination that recurses is among those that the end sweeps.
    """

    expected_version: int
    row: InstanceRow
    consumed: tuple[int, ...] = ()
    consumed_timers: tuple[int, ...] = ()
    discarded: tuple[int, ...] = ()
    history: HistoryAppend | None = None
    messages: tuple[NewMessage, ...] = ()
    if_recursive: tuple[NewMessage, ...] = ()
    timers: tuple[NewTimer, ...] = ()
    activities: tuple[NewActivity, ...] = ()
    children: tuple[NewChild, ...] = ()
    ended: bool = False
    output: str | None = None
    continued_from: str | None = None
    new_input: str | None = None
    drop_unclaimed: bool = False
    packed: PackedTurn | None = None

    @property
    def key(self) -> InstanceKey:
        """The instance."""
        return self.row.key


@dataclass(frozen=True, slots=True)
class EntityCheckpoint:
    """The outcome of one step of an entity: a batch of operations that a worker ran, or what the host does by itself.

    `expected_version` is the fence: 0 says that there is no row. `row` is the row afterwards, with `row_version` one
    above; None: there is none any more, because the entity has neither state nor lock (implicit deletion, S-353).
    `consumed` and `consumed_timers` are sequences that must all still be there. `children` are orchestrations that
    the entity starts.
    """

    key: InstanceKey
    expected_version: int
    row: EntityRow | None
    consumed: tuple[int, ...] = ()
    consumed_timers: tuple[int, ...] = ()
    messages: tuple[NewMessage, ...] = ()
    timers: tuple[NewTimer, ...] = ()
    children: tuple[NewChild, ...] = ()


@dataclass(frozen=True, slots=True)
class OrchestrationStart:
    """An orchestration that a client starts at its owner, under an id that is free; else it is lost.

    It may go again when it is not known what became of it: it is its own execution id that says so.
    """

    child: NewChild

    @property
    def key(self) -> InstanceKey:
        """The instance."""
        return self.child.row.key


@dataclass(frozen=True, slots=True)
class ActivityCompletion:
    """The result of an activity task: removes the task (fenced by its claim) and queues the response.

    Whether anybody still waits for it is for the instance's owner to say, and for nobody else: what a host that has
    lost the partition has in memory may be an execution before the one that waits.
    """

    key: InstanceKey
    seq: int
    token: int
    message: NewMessage


@dataclass(frozen=True, slots=True)
class Discard:
    """Rows that no turn will ever take (their instance has ended or is gone); deleted uncounted."""

    key: InstanceKey
    seqs: tuple[int, ...]
    timers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Blame:
    """What is known of an item that is set aside: what it is called, who had it last, how often it failed.

    `execution_id` None: whichever execution of the instance runs. Names of activities are their rows'.
    """

    execution_id: str | None = None
    name: str | None = None
    version: str | None = None
    worker: str | None = None
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Quarantine:
    """An item that can never be carried out by its own doing: its rows leave the queues and stay, with the cause.

    `seqs` and `timers` are the control-queue rows and timers that it consists of, which must all still be there;
    `activity` the activity task's (sequence, claim token) instead. `blame` says who had it, and how often.
    """

    key: InstanceKey
    cause: str
    seqs: tuple[int, ...] = ()
    timers: tuple[int, ...] = ()
    activity: tuple[int, int] | None = None
    blame: Blame = Blame()


Checkpoint = TurnCheckpoint | EntityCheckpoint
Item = Checkpoint | OrchestrationStart | ActivityCompletion | Discard | Quarantine


class OutcomeKind(Enum):
    """What became of one item of a group."""

    COMMITTED = "committed"
    LOST = "lost"  # its fence does not hold any more; nothing was changed
    BUSY = "busy"  # a row that it needs is locked by another session; try it again, alone
    REFUSED = "refused"  # the database refuses it whatever the company; it belongs into quarantine


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item, with the cause when it did not commit."""

    kind: OutcomeKind
    cause: str = ""


COMMITTED = Outcome(OutcomeKind.COMMITTED)
