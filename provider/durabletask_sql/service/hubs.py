"""What clients can do to the task hub itself, if the server's settings let them."""

from collections.abc import Callable

from durabletask_sql.errors import PermissionDeniedError
from durabletask_sql.ports.hubs import Store, TaskHub


class HubAdministration:
    """Creating and deleting one task hub that this server serves.

    It exists as long as it is served, so creating it does nothing more than to say so, and deleting it empties it:
    it goes on being served with nothing in it.
    """

    def __init__(self, hub: TaskHub, store: Store, emptied: Callable[[], None], *, allowed: bool) -> None:
        """`emptied` tells the owner in this process that nothing it knows of the hub holds any more."""
        self._hub = hub
        self._store = store
        self._emptied = emptied
        self._allowed = allowed

    async def create(self, *, recreate: bool) -> None:
        """Make sure that the hub is there; with `recreate` it is emptied. Raises PermissionDeniedError."""
        self._check()
        if recreate:
            await self._empty()

    async def delete(self) -> None:
        """Delete everything in the hub. Raises PermissionDeniedError."""
        self._check()
        await self._empty()

    def _check(self) -> None:
        if not self._allowed:
            message = (f"this server does not let clients create or delete task hubs, so {self._hub.name!r} was left as it "
                       "is: start it with --manage-task-hubs (or DURABLETASK_SQL_MANAGE_TASK_HUBS=1) to allow that, "
                       "to every client that can reach it")
            raise PermissionDeniedError(message)

    async def _empty(self) -> None:
        await self._store.empty_hub(self._hub)
        self._emptied()
