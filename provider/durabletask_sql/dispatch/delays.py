"""How long work that was given back waits before it is offered again, and the waiting of instances and entities."""

import asyncio
import logging
from collections.abc import Callable

from durabletask_sql.partitions.eviction import AnyMemory
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.ports.work import Executor

_log = logging.getLogger(__name__)

_FIRST_SECONDS = 1.0
LAST_SECONDS = 60.0
REPORT_ABANDONS = 100


def delay_seconds(times: int) -> float:
    """Return the delay after having been given back so many times in a row: 1 s doubling to 60 s."""
    return min(LAST_SECONDS, _FIRST_SECONDS * 2.0 ** min(times - 1, 10))


class Delays:
    """Instances and entities that do not run for a while."""

    def __init__(self, memory: Memory, pump: Callable[[], None]) -> None:
        """`pump` hands out what has become ready."""
        self._memory = memory
        self._pump = pump

    def give_back(self, mem: AnyMemory, executor: Executor) -> None:
        """Note that an executor abandoned its turn, and delay the next one."""
        mem.abandons += 1
        mem.abandoned_by = executor
        if mem.abandons % REPORT_ABANDONS == 0:
            _log.warning("instance %r: %d turns in a row were given back, the last by worker %r", mem.key.instance_id,
                         mem.abandons, executor.name)
        self.begin(mem, mem.abandons)

    def begin(self, mem: AnyMemory, times: int) -> None:
        """Put an instance back whose turn failed so many times in a row; it waits before its next one."""
        mem.blocked = True
        self._memory.put_back(mem)
        asyncio.get_running_loop().call_later(delay_seconds(times), self.end, mem)

    def end(self, mem: AnyMemory) -> None:
        """Let an instance run again, unless memory has forgotten it meanwhile."""
        if self._memory.find(mem.key) is mem:
            self._memory.unblock(mem)
            self._pump()
