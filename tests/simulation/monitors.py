"""What has to hold at every moment: looked at whenever an operation of the store has taken effect."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from durabletask_sql.model.checkpoints import ActivityCompletion, OutcomeKind
from durabletask_sql.model.messages import ActivityRow
from durabletask_sql.ports.committer import Committed, Group
from simulation.loop import Process


class Monitors:
    """Looks into the database with a connection of its own."""

    def __init__(self, path: str, told: Callable[[str, str], None]) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._told = told

    def close(self) -> None:
        self._connection.close()

    def look(self, process: Process, name: str, arguments: tuple[Any, ...], result: Any) -> str:
        """Check what an operation did; return what the trace should say of it."""
        if name in ("commit", "commit_alone"):
            self._check_group(process, arguments[0], result)
            return " ".join(f"{type(item).__name__}:{item.key.instance_id}:{outcome.kind.value}"
                            for item, outcome in zip(arguments[0].items, result.outcomes, strict=True))
        if isinstance(result, int | bool | Mapping) or result is None:
            return str(result)
        return ""

    def _check_group(self, process: Process, group: Group, committed: Committed) -> None:
        """I2: what is fenced by its partition was committed by the owner of that partition, under its epoch."""
        owned = {partition: (owner, epoch) for partition, owner, epoch in self._connection.execute(
            "SELECT partition, owner, epoch FROM partitions")}
        for item, outcome in zip(group.items, committed.outcomes, strict=True):
            partition = item.key.partition
            if outcome.kind is not OutcomeKind.COMMITTED or isinstance(item, ActivityCompletion):
                continue
            if owned[partition] != (group.host_id, group.epochs.get(partition)):
                self._told("fence", f"{process.name} committed {type(item).__name__} of {item.key.instance_id} under "
                                    f"{group.epochs.get(partition)}, while {owned[partition]} is owner and epoch")

    def answered(self, row: ActivityRow) -> None:
        """I3: a result that was acknowledged has been taken, or its claim had gone."""
        if self._connection.execute("SELECT 1 FROM activity_queue WHERE seq = ? AND token = ?", (row.seq, row.token)).fetchall():
            self._told("durable", f"the result of activity {row.task_id} of {row.key.instance_id} was acknowledged and is not there")

    def acknowledged(self, what: str, instance: str) -> None:
        """I3: what was acknowledged is there."""
        if not self._connection.execute("SELECT 1 FROM instances WHERE instance_id = ?", (instance,)).fetchall():
            self._told("durable", f"{instance} was acknowledged as {what} and is not there")
