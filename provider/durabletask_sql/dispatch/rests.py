"""How an instance rests between turns that yield nothing while results stream in.

A replay costs its worker time that grows with the history. An orchestration that waits for a thousand activities would
be replayed for every few results, each time in vain, and the activities would wait behind those turns. So after a turn
in vain the next one waits as long as that one took, or until nothing more arrives. Short histories never rest.
"""

import asyncio
from collections.abc import Callable

from durabletask_sql.model.checkpoints import TurnCheckpoint
from durabletask_sql.model.instances import InstanceRow
from durabletask_sql.partitions.instance import InstanceMemory
from durabletask_sql.partitions.memory import Memory

LEAST_EVENTS = 100
LONGEST_SECONDS = 0.5
LOOK_SECONDS = 0.01


def is_vain(before: InstanceRow, checkpoint: TurnCheckpoint) -> bool:
    """Tell whether a turn with a long history only took note of what it was told."""
    after = checkpoint.row
    return (after.history_count >= LEAST_EVENTS and bool(checkpoint.consumed) and not checkpoint.ended
            and checkpoint.continued_from is None and after.status is before.status
            and after.custom_status == before.custom_status
            and not (checkpoint.activities or checkpoint.timers or checkpoint.children or checkpoint.messages))


class Rests:
    """The instances that rest."""

    def __init__(self, memory: Memory, pump: Callable[[], None]) -> None:
        """`pump` hands out what has become ready."""
        self._memory = memory
        self._pump = pump

    def begin(self, mem: InstanceMemory, seconds: float) -> None:
        """Have an instance rest whose turn in vain took so long; its commit may still be under way."""
        mem.rests = True
        self._wait(mem, asyncio.get_running_loop().time() + min(seconds, LONGEST_SECONDS))

    def _wait(self, mem: InstanceMemory, until: float) -> None:
        asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look, mem, _last(mem), until)

    def _look(self, mem: InstanceMemory, last: tuple[int, int], until: float) -> None:
        if _last(mem) != last and asyncio.get_running_loop().time() < until:
            self._wait(mem, until)
            return
        mem.rests = False
        if self._memory.find(mem.key) is mem:
            self._memory.consider(mem)
            self._pump()


def _last(mem: InstanceMemory) -> tuple[int, int]:
    """Return what changes when something arrives."""
    return len(mem.rows), mem.rows[-1].seq if mem.rows else 0
