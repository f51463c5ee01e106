"""Rewinding in one transaction: every instance concerned is locked and checked before anything is written."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import update

from durabletask_sql.model.checkpoints import HistoryAppend
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.messages import NewMessage
from durabletask_sql.model.payloads import PackedTurn
from durabletask_sql.model.rewinds import NewAgain, Relink, Rewind
from durabletask_sql.protocol.texts import INPUT
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.codec import decode_instance, encode_instance
from durabletask_sql.storage.dialect import TEXT, Row, Statement, unindexed
from durabletask_sql.storage.packing import history_row, pack, pack_history, payload_row
from durabletask_sql.storage.session import Session
from durabletask_sql.storage.tables import payloads
from durabletask_sql.storage.writes import (
    DELETE_HISTORY_OF,
    DELETE_PAYLOADS_OF,
    DELETE_TASKS_OF,
    LOCK_INSTANCES,
    message_row,
)

# An input stays with its instance when its execution begins anew. The payload's name is compared in a form that no index
# serves: a plan made in an empty hub would otherwise look for it first, among the payloads of all.
MOVE_INPUTS = Statement("payloads", lambda v: (
    update(payloads).where(sql.by_key(payloads, v), payloads.c.execution_id == v.c.execution_id,
                           unindexed(payloads.c.payload_id) == INPUT)
    .values(execution_id=v.c.new_execution_id)), {**sql.EXECUTIONS, "new_execution_id": TEXT})

Locked = Mapping[InstanceKey, InstanceRow]


@dataclass(frozen=True, slots=True)
class PackedRewind:
    """The texts of a rewind as they are stored: each row of history, and the inputs of what is created again."""

    history: Sequence[tuple[InstanceRow, HistoryAppend, PackedTurn]]
    inputs: Sequence[Row]


def pack_rewind(plan: Rewind) -> PackedRewind:
    """Pack the texts of a rewind: work for a thread of its own, before any row is locked."""
    return PackedRewind(
        [(one.row, part, pack_history(part)) for one in plan.instances for part in one.history],
        [payload_row(one.child.row, INPUT, pack(one.child.input.encode())) for one in plan.created
         if one.child.input is not None])


def rewind(session: Session, hub_id: int, plan: Rewind, packed: PackedRewind) -> bool:
    """Carry out a rewind; False, with nothing changed, when what it was made from does not hold any more.

    Raises ShortWriteError when another session takes the id of a sub-orchestration meanwhile.
    """
    keys = sorted({*(one.key for one in plan.instances), *(one.key for one in plan.relinked),
                   *(one.child.row.key for one in plan.created)})
    rows = map(decode_instance, session.ask(LOCK_INSTANCES, keys, hub=hub_id))
    locked = {row.key: row for row in rows}
    if not _holds(plan, locked):
        return False
    _Writer(session, hub_id, plan, locked).write(packed)
    return True


def _holds(plan: Rewind, locked: Locked) -> bool:
    versions = {key: row.row_version for key, row in locked.items()}
    return (all(versions.get(one.key) == one.expected_version for one in plan.instances)
            and all(_is_linked(one, locked) for one in plan.relinked)
            and all(_is_free(one, versions) for one in plan.created))


def _is_linked(one: Relink, locked: Locked) -> bool:
    row = locked.get(one.key)
    if row is None or row.parent != one.old:
        return False
    return not row.status.is_terminal if one.expected_version is None else row.row_version == one.expected_version


def _is_free(one: NewAgain, versions: Mapping[InstanceKey, int]) -> bool:
    return versions.get(one.child.row.key) == (one.replaced.row_version if one.replaced is not None else None)


class _Writer:
    """The statements of a rewind, in the fixed table order."""

    def __init__(self, session: Session, hub_id: int, plan: Rewind, locked: Locked) -> None:
        self._session = session
        self._hub = hub_id
        self._plan = plan
        self._locked = locked

    def _send(self, statement: Statement, rows: Iterable[Row]) -> None:
        listed = list(rows)
        if listed:
            self._session.send(statement, listed, hub=self._hub)

    def write(self, packed: PackedRewind) -> None:
        plan = self._plan
        replaced = [one.child.row.key for one in plan.created if one.replaced is not None]
        begun = sorted((*(one.key for one in plan.instances), *replaced))
        self._send(sql.UPDATE_INSTANCES, map(encode_instance, self._updated()))
        self._send(sql.INSERT_INSTANCES, sorted(
            encode_instance(one.child.row) for one in plan.created if one.replaced is None))
        self._send(DELETE_TASKS_OF, begun)
        self._send(sql.SWEEP_MESSAGES, begun)
        self._send(sql.INSERT_MESSAGES, map(message_row, self._messages()))
        self._send(sql.SWEEP_TIMERS, begun)
        self._send(sql.INSERT_TIMERS, (
            (*timer.key, timer.execution_id, int(timer.kind), timer.fire_at, 0, timer.events)
            for one in plan.instances for timer in one.timers))
        self._send(DELETE_HISTORY_OF, begun)
        self._send(sql.INSERT_HISTORY, (history_row(row.key, part, texts) for row, part, texts in packed.history))
        self._send(DELETE_PAYLOADS_OF, replaced)
        self._send(MOVE_INPUTS, ((*one.key, one.failed_execution_id, one.row.execution_id) for one in plan.instances))
        self._send(sql.DELETE_PAYLOADS, ((*one.key, one.failed_execution_id) for one in plan.instances))
        self._send(sql.INSERT_PAYLOADS, [*packed.inputs, *(
            payload_row(row, payload_id, text) for row, _, texts in packed.history
            for payload_id, text in texts.texts.items())])

    def _updated(self) -> list[InstanceRow]:
        """Return every row that is there and changes, by key."""
        found = [one.row for one in self._plan.instances]
        for relink in self._plan.relinked:
            row = self._locked[relink.key]
            found.append(replace(row, parent=relink.new, row_version=row.row_version + 1))
        found += [replace(one.child.row, row_version=one.replaced.row_version + 1, generation=one.replaced.generation)
                  for one in self._plan.created if one.replaced is not None]
        return sorted(found, key=_key)

    def _messages(self) -> list[NewMessage]:
        plan = self._plan
        return [*(one.start for one in plan.instances), *(one.child.start for one in plan.created), *plan.told]


def _key(row: InstanceRow) -> InstanceKey:
    return row.key
