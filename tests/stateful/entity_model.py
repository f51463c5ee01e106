"""What the entities of a task hub do, said as simply as possible: a queue each, a state, a lock.

Operations run in the order of the queue, up to a lock request, which waits for what is before it and holds up what is
behind it. While an entity is locked only what its holder sends ahead runs. A lock belongs to a critical section of one
execution; the request for a set of locks visits one entity after the other, in order of their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from stateful.words import Word

Deliver = Callable[[str, Word, "int | None"], None]


class Owner(NamedTuple):
    """Who holds a lock, or asks for it."""

    instance: str
    execution: int
    section: str


@dataclass(frozen=True)
class Operation:
    """An operation; `caller` is the execution that waits for its result, None for a signal."""

    number: int
    name: str
    input: str
    request: str = ""
    caller: tuple[str, int] | None = None
    ahead: bool = False

    @property
    def word(self) -> Word:
        return ("operation", self.name, self.input)


@dataclass(frozen=True)
class LockRequest:
    """A request for the locks of a section, at the entity of `chain` whose turn it is."""

    owner: Owner
    chain: tuple[str, ...]  # this entity, and those that come behind it
    ahead: bool = False

    @property
    def word(self) -> Word:
        return ("lock", self.owner.section)


@dataclass(frozen=True)
class Release:
    """The end of a section. With a `chain` it follows a request that was not granted, and takes it back."""

    owner: Owner
    chain: tuple[str, ...] = ()
    ahead: bool = True

    @property
    def word(self) -> Word:
        return ("release", self.owner.section, *(("along its chain",) if self.chain else ()))


Message = Operation | LockRequest | Release


@dataclass
class Section:
    """A critical section of an execution: the entities that it has not unlocked, and whether it was told of its locks."""

    id: str
    entities: tuple[str, ...]
    granted: bool = False


@dataclass
class Entity:
    """An entity. `version` counts its changes: a batch that was made before one counts no more."""

    id: str
    state: str | None = None
    lock: Owner | None = None
    queue: list[Message] = field(default_factory=list)
    delayed: list[tuple[int, Operation]] = field(default_factory=list)
    version: int = 0

    def runnable(self, now: int) -> list[Operation]:
        """Return the operations that may run, in their order; a batch takes some, from the first on."""
        if self.lock is not None:
            return [one for one in self.queue if isinstance(one, Operation) and self._is_holders(one)]
        found = list[Operation]()
        for one in self.queue:
            if isinstance(one, LockRequest):
                return found
            if isinstance(one, Operation):
                found.append(one)
        due = [(at, one) for at, one in self.delayed if at <= now]
        return found + [one for _, one in sorted(due, key=lambda pair: (pair[0], pair[1].number))]

    def _has_to_wait(self, one: Release, *, has_calls: bool) -> bool:
        return has_calls if one.owner == self.lock else self.lock is not None and bool(one.chain)

    def _is_holders(self, one: Operation) -> bool:
        return one.ahead and self.lock is not None and one.caller == self.lock[:2]

    def follow_releases(self) -> list[Release]:
        """Carry out the releases that may be; return what of them goes on to the next entity.

        To take back a request that waits behind another's lock has time until that lock is free.
        """
        following, has_calls = list[Release](), False
        for one in list(self.queue):
            if isinstance(one, Operation):
                has_calls |= self._is_holders(one)
            elif isinstance(one, Release) and not self._has_to_wait(one, has_calls=has_calls):
                self.queue.remove(one)
                asked = next((at for at in self.queue if isinstance(at, LockRequest) and at.owner == one.owner), None)
                if one.owner == self.lock:
                    self.lock = None
                elif asked is not None and one.chain:
                    self.queue.remove(asked)
                    continue
                if len(one.chain) > 1:
                    following.append(replace(one, chain=one.chain[1:]))
        return following


@dataclass(frozen=True)
class Batch:
    """Operations that were handed out, by number, and the entity's version then."""

    entity: str
    version: int
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class BatchAnswer:
    """What a worker says of a batch: a result each (False: a failure), the state, signals, orchestrations to start.

    `failure`: the batch as a whole failed, so that the operations without a result did.
    """

    results: tuple[tuple[bool, str], ...]
    state: str | None = None
    signals: tuple[tuple[str, str, str, int | None], ...] = ()  # entity, operation, input, due
    starts: tuple[tuple[str, str], ...] = ()  # id, input
    failure: str | None = None


class Entities:
    """All entities of a hub. `deliver` puts a message into an execution's inbox."""

    def __init__(self, deliver: Deliver) -> None:
        self.all: dict[str, Entity] = {}
        self.deliver = deliver
        self.numbers = 0

    def at(self, entity_id: str) -> Entity:
        return self.all.setdefault(entity_id, Entity(entity_id))

    def operate(self, entity_id: str, name: str, data: str, *, due: int | None = None, request: str = "",
                caller: tuple[str, int] | None = None, ahead: bool = False) -> None:
        """Queue an operation, a signal if nobody waits for it; delayed if it is due later (None: at once)."""
        self.numbers += 1
        operation = Operation(self.numbers, name, data, request, caller, ahead)
        if due is None:
            self.at(entity_id).queue.append(operation)
        else:
            self.at(entity_id).delayed.append((due, operation))

    def request(self, owner: Owner, wanted: Collection[str]) -> Section:
        """Ask for locks, and return the section."""
        chain = tuple(sorted(set(wanted)))
        self.at(chain[0]).queue.append(LockRequest(owner, chain))
        return Section(owner.section, chain)

    def release(self, owner: Owner, section: Section, only: str | None = None) -> None:
        """Leave a section, as far as one entity is concerned if it was granted."""
        if not section.granted:
            self.at(section.entities[0]).queue.append(Release(owner, section.entities))
            return
        for entity_id in section.entities:
            if only in (None, entity_id):
                self.at(entity_id).queue.append(Release(owner))

    def purge(self, entity_id: str) -> int:
        """Delete an entity's state; return how many had one."""
        entity = self.at(entity_id)
        if entity.state is None:
            return 0
        entity.state, entity.version = None, entity.version + 1
        return 1

    def matching(self, prefix: str, *, transient: bool) -> list[tuple[str, str | None, str | None]]:
        """What a query finds, in order of ids: those with a state, and those that are locked if `transient`."""
        return sorted((one.id, one.state, one.lock and one.lock.instance) for one in self.all.values()
                      if one.id.startswith(prefix) and (one.state is not None or (transient and one.lock is not None)))

    def settle(self, busy: Collection[str]) -> None:
        """Do what needs no worker: releases and grants; entities with a batch out wait for it."""
        while any(self._step(one) for one in list(self.all.values()) if one.id not in busy):
            pass

    def _step(self, entity: Entity) -> bool:
        before = (len(entity.queue), entity.lock)
        for release in entity.follow_releases():
            self.at(release.chain[0]).queue.append(release)
        changed = before != (len(entity.queue), entity.lock)
        first = entity.queue[0] if entity.queue else None
        if not changed and entity.lock is None and isinstance(first, LockRequest):
            entity.queue.pop(0)
            entity.lock, following = first.owner, first.chain[1:]
            if following:
                self.at(following[0]).queue.append(replace(first, chain=following))
            else:
                self.deliver(first.owner.instance, ("granted", first.owner.section), first.owner.execution)
            changed = True
        entity.version += changed
        return changed

    def is_current(self, batch: Batch) -> bool:
        """Whether an answer to a batch counts."""
        return self.at(batch.entity).version == batch.version

    def commit(self, batch: Batch, answer: BatchAnswer, now: int) -> None:
        """Follow an answer; orchestrations to start are its caller's to make."""
        entity = self.at(batch.entity)
        waiting = {one.number: one for one in (*entity.queue, *(one for _, one in entity.delayed))
                   if isinstance(one, Operation)}
        done = [waiting[number] for number in batch.numbers]
        if answer.failure is None:
            done = done[:len(answer.results)]
        for at, operation in enumerate(done):
            good, text = answer.results[at] if at < len(answer.results) else (False, answer.failure or "")
            if operation.caller is not None:
                told = ("call done" if good else "call failed", operation.request, text)
                self.deliver(operation.caller[0], told, operation.caller[1])
        entity.queue = [one for one in entity.queue if one not in done]
        entity.delayed = [pair for pair in entity.delayed if pair[1] not in done]
        if answer.state is not None or answer.failure is None:
            entity.state = answer.state
        entity.version += 1
        for target, name, data, due in answer.signals:
            self.operate(target, name, data, due=due if due is not None and due > now else None)
