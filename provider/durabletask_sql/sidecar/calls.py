"""What every call has in common: which task hub it is for, parsing, and errors as status codes."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from durabletask_sql.errors import DurableTaskSqlError, InvalidArgumentError, NotFoundError
from durabletask_sql.ports.work import WorkBoard
from durabletask_sql.service.abstraction import EntityService, OrchestrationService
from durabletask_sql.service.hubs import HubAdministration
from durabletask_sql.sidecar.errors import status_of

_log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[bytes, bytes]
Request = TypeVar("Request", bound=Message)
UnaryMethod = Callable[["Call", Request], Awaitable[Message]]


class ServedHub(Protocol):
    """A task hub that this server serves."""

    @property
    def service(self) -> OrchestrationService:
        """What clients can do."""
        ...

    @property
    def entities(self) -> EntityService:
        """What clients can do to entities."""
        ...

    @property
    def board(self) -> WorkBoard:
        """Where workers connect."""
        ...

    @property
    def administration(self) -> HubAdministration:
        """What clients can do to the hub itself."""
        ...


class Call:
    """One call: its hub and who calls. The hub comes from the metadata alone, never from a message."""

    def __init__(self, hubs: Mapping[str, ServedHub], context: Context) -> None:
        """Raises NotFoundError when the hub is not served here."""
        self._context = context
        name = self._metadata("taskhub") or next(iter(hubs))
        found = hubs.get(name)
        if found is None:
            served = ", ".join(repr(hub) for hub in hubs)
            message = (f"the task hub {name!r} is not served here (served: {served}): start the server with "
                       f"`--task-hub {name}`, or change the client's task hub")
            raise NotFoundError(message)
        self.hub = found

    def _metadata(self, name: str) -> str:
        """Return what the caller's metadata say under a name; "" for nothing."""
        for key, value in self._context.invocation_metadata() or ():
            if key == name and isinstance(value, str):
                return value
        return ""

    @property
    def agents(self) -> str:
        """The user agents of the caller's transport and of its SDK."""
        return f"{self._metadata('user-agent')} {self._metadata('x-user-agent')}"

    @property
    def worker(self) -> str:
        """What identifies a worker in logs: its id, if it sends one, else where it is and what it says it is."""
        return self._metadata("workerid") or f"{self._context.peer()} {self.agents.strip()}"

    @property
    def service(self) -> OrchestrationService:
        """What clients can do."""
        return self.hub.service

    @property
    def entities(self) -> EntityService:
        """What clients can do to entities."""
        return self.hub.entities

    @property
    def board(self) -> WorkBoard:
        """Where workers connect."""
        return self.hub.board


def parse(kind: type[Request], data: bytes) -> Request:
    """Return a request. Raises InvalidArgumentError when the bytes are not one."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        message = f"the bytes are not a {kind.DESCRIPTOR.name} message: {error}"
        raise InvalidArgumentError(message) from error


def unary(hubs: Mapping[str, ServedHub], name: str, kind: type[Request],
          method: UnaryMethod[Request]) -> Callable[[bytes, Context], Awaitable[bytes]]:
    """Wrap a method: bytes in, bytes out, this project's errors as status codes."""
    async def handle(data: bytes, context: Context) -> bytes:
        try:
            answer = await method(Call(hubs, context), parse(kind, data))
            return answer.SerializeToString()
        except DurableTaskSqlError as error:
            code, text = status_of(error)
        except Exception as error:
            _log.exception("%s failed by a bug", name)
            code, text = status_of(error)
        await context.abort(code, text)
        raise AssertionError(name)  # abort raises

    return handle
