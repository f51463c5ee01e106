"""What is kept of deliveries that failed, or that a careful host has out."""

from typing import NamedTuple

from durabletask_sql.model.quarantine import Source


class RowKey(NamedTuple):
    """A row of one of the queues."""

    source: Source
    partition: int
    seq: int


class Mark(NamedTuple):
    """How many deliveries of a row have failed in a row by now. `token` is the claim, of an activity task."""

    row: RowKey
    failed: int
    token: int = 0


class Out(NamedTuple):
    """A row that a careful host has handed out. `is_suspect`: its item went out as a suspect."""

    row: RowKey
    is_suspect: bool
