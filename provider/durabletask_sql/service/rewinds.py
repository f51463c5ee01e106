"""Letting failed instances begin again where they failed, with everything below them that failed as well.

Reads what there is, decides, and hands the store one value that takes effect whole or, when something has changed
meanwhile, not at all; then it is made anew.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from durabletask_sql.clock import Clock
from durabletask_sql.errors import FailedPreconditionError, NotFoundError, UnavailableError
from durabletask_sql.ids import new_execution_id
from durabletask_sql.model.creation import CHILD_POLICY, Decision
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.messages import NewMessage
from durabletask_sql.model.rewinds import NewAgain, Relink, Rewind, RewoundInstance
from durabletask_sql.model.status import Status
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.instances import Instances, Sent
from durabletask_sql.turn.children import child_key, link, new_child
from durabletask_sql.turn.notices import child_ended_notice
from durabletask_sql.turn.rewind import Cause, OpenChild, rewind

_ATTEMPTS = 10


@dataclass(slots=True)
class _Plan:
    """A rewind on its way."""

    rewound: list[RewoundInstance] = field(default_factory=list)
    relinked: dict[InstanceKey, Relink] = field(default_factory=dict)
    created: list[NewAgain] = field(default_factory=list)
    told: list[NewMessage] = field(default_factory=list)
    taken: set[InstanceKey] = field(default_factory=set)

    def value(self) -> Rewind:
        return Rewind(tuple(self.rewound), tuple(self.relinked.values()), tuple(self.created), tuple(self.told))


class Rewinds:
    """Rewinds of one task hub."""

    def __init__(self, hub: TaskHub, instances: Instances, clock: Clock) -> None:
        """Take the parts."""
        self._hub = hub
        self._instances = instances
        self._clock = clock

    async def rewind(self, key: InstanceKey, reason: str | None) -> Sent:
        """Rewind an instance and return whom that concerns.

        Raises NotFoundError, FailedPreconditionError when it has not failed, and UnavailableError when it, or what is
        below it, keeps changing.
        """
        for _ in range(_ATTEMPTS):
            root = (await self._instances.rows([key])).get(key)
            if root is None:
                message = f"there is no orchestration instance with the id '{key.instance_id}'"
                raise NotFoundError(message)
            if root.status is not Status.FAILED:
                message = (f"the instance '{key.instance_id}' is {root.status.name.lower()}, which does not allow it to be "
                           "rewound: only one that has failed can be")
                raise FailedPreconditionError(message)
            plan = await self._plan(root, reason)
            if plan is not None and await self._instances.rewind(plan):
                return _concerned(plan)
        message = f"the instance '{key.instance_id}' was not rewound: it changed each time that it was read, try again"
        raise UnavailableError(message)

    async def _plan(self, root: InstanceRow, reason: str | None) -> Rewind | None:
        """Decide about an instance and what is below it; None when that was deleted while it was read."""
        plan, cause = _Plan(taken={root.key}), Cause(reason, self._clock.now())
        waiting = deque([(root, cause)])
        while waiting:
            row, cause = waiting.popleft()
            try:
                pages = [page async for page in self._instances.history(row.key, row.execution_id)]
            except NotFoundError:
                return None
            if not pages:
                return None
            rewound, children = await asyncio.to_thread(rewind, row, b"".join(pages), cause, new_execution_id())
            plan.rewound.append(rewound)
            below = replace(cause, parent_execution_id=rewound.row.execution_id)
            waiting.extend((failed, below) for failed in await self._settle(plan, row, rewound, children))
        return plan.value()

    async def _settle(self, plan: _Plan, before: InstanceRow, rewound: RewoundInstance,
                      children: Sequence[OpenChild]) -> list[InstanceRow]:
        """Decide about the sub-orchestrations that an instance waits for; return those that failed as well."""
        rows = await self._instances.rows([child_key(child.body, self._hub.partition_count) for child in children])
        failed = []
        for child in children:
            found = rows.get(child_key(child.body, self._hub.partition_count))
            if (found is None or found.parent != link(before, child.task_id)
                    or (found.status is Status.FAILED and found.key in plan.taken)):
                self._create(plan, rewound.row, child, found)
            elif found.status is Status.FAILED:
                failed.append(found)
                plan.taken.add(found.key)
            else:
                await self._relink(plan, rewound.row, child, found)
        return failed

    def _create(self, plan: _Plan, parent: InstanceRow, child: OpenChild, found: InstanceRow | None) -> None:
        """Create a sub-orchestration again that is gone, unless its id lives or was taken in this very rewind.

        What else has its id is treated as at its first creation.
        """
        made = new_child(parent, child.task_id, child.body, new_execution_id(), self._clock.now(),
                         self._hub.partition_count)
        decision = CHILD_POLICY.decide(found.status if found is not None else None)
        if decision is Decision.REFUSE or made.row.key in plan.taken:
            assert made.refusal is not None  # a parent waits for it
            plan.told.append(made.refusal)
        else:
            plan.taken.add(made.row.key)
            plan.relinked.pop(made.row.key, None)  # one that has ended, and has been told of
            plan.created.append(NewAgain(made, found))

    async def _relink(self, plan: _Plan, parent: InstanceRow, child: OpenChild, found: InstanceRow) -> None:
        """Link a sub-orchestration to the new execution; one that has ended reports again, even if its id is taken."""
        assert found.parent is not None
        new = link(parent, child.task_id)
        version = found.row_version if found.status.is_terminal else None
        if found.key not in plan.taken:
            plan.relinked[found.key] = Relink(found.key, found.parent, new, version)
        if version is not None:
            state = await self._instances.get(found.key, payloads=True)
            report = child_ended_notice(replace(found, parent=new), state.output if state is not None else None,
                                        self._clock.now(), self._hub.partition_count)
            assert report is not None  # its parent waits for it
            plan.told.append(report)


def _concerned(plan: Rewind) -> Sent:
    """Return who got rows, and of whom nothing that is known holds any more."""
    begun: Mapping[InstanceKey, None] = dict.fromkeys(
        [*(one.key for one in plan.instances), *(one.child.row.key for one in plan.created)])
    return Sent(frozenset(begun), frozenset([*begun, *(one.key for one in plan.relinked)]))
