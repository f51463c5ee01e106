"""What is kept of deliveries: how often those of a row have failed, and what a careful host has out. Off the hot path."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from durabletask_sql.model.deliveries import Mark, Out, RowKey


class DeliveryStore(Protocol):
    """The deliveries of one task hub. Each method is one transaction, and may be repeated; all raise UnavailableError.

    What a lost host had out fails once more with the transaction that removes the host (`Leases.acquire`).
    """

    async def mark(self, host_id: int, epochs: Mapping[int, int], marks: Sequence[Mark]) -> None:
        """Keep how many deliveries have failed. Rows that are gone, or not this host's any more, are passed over."""
        ...

    async def record(self, host_id: int, out: Sequence[Out], back: Sequence[RowKey]) -> None:
        """Write down what a host is about to hand out, and strike out what has come back."""
        ...

    async def forget(self, host_id: int) -> None:
        """Strike out everything that a host has out."""
        ...
