"""Eight kinds of poison, none of which abandons or ends its worker, and the load worker that gives them as answers.

    python benchmarks/poisoned.py worker ADDRESS     like `load.py worker`; the line "mend" ends all poison

An orchestration `POISON` is given the kind as its input. When it is mended it calls an activity, or the entity of its
kind, and ends.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import uvloop
from load import Answers, calling, ending, prepared, scheduling, work

from durabletask_sql.protocol import taskhub_pb2 as pb

POISON = "poison"
MEND = "mend"


@dataclass(frozen=True)
class Kind:
    """An answer that cannot be carried out. `cause` is part of what the quarantine says about it.

    `later`: it comes after the first result; else at once. `entity`: it is an entity's.
    """

    name: str
    answer: bytes
    cause: str
    later: bool = False
    entity: bool = False


def _impossible() -> pb.OrchestratorAction:
    action = ending(1)
    action.completeOrchestration.orchestrationStatus = pb.ORCHESTRATION_STATUS_RUNNING
    return action


def _unprocessed() -> bytes:
    answer = pb.OrchestratorResponse(actions=[scheduling(0)])
    answer.numEventsProcessed.value = 0
    return answer.SerializeToString()


def _missing() -> bytes:
    answer = pb.OrchestratorResponse(actions=[ending(1)])
    answer.chunkIndex.value = 1
    return answer.SerializeToString()


_UNNAMED = pb.OrchestratorAction(id=0, scheduleTask=pb.ScheduleTaskAction(name=""))
_OVER_LONG = pb.OrchestratorAction(id=1, createSubOrchestration=pb.CreateSubOrchestrationAction(
    name="child", instanceId="x" * 2_001))
_RESULT = pb.OperationResult(success=pb.OperationResultSuccess())
KINDS = {kind.name: kind for kind in (
    Kind("unknown-action", prepared(pb.OrchestratorAction(id=0)), "of an unknown kind is not supported"),
    Kind("impossible-status", prepared(_impossible()), "cannot end with status", later=True),
    Kind("unnamed-activity", prepared(_UNNAMED), "the activity name is empty"),
    Kind("over-long-id", prepared(_OVER_LONG), "at most 2000 are allowed", later=True),
    Kind("unprocessed-events", _unprocessed(), "a turn is taken whole or not at all"),
    Kind("missing-part", _missing(), "of which some are missing", later=True),
    Kind("too-many-results", pb.EntityBatchResult(results=[_RESULT] * 3).SerializeToString(),
         "3 results answer 1 operations", entity=True),
    Kind("undecided-result", pb.EntityBatchResult(results=[pb.OperationResult()]).SerializeToString(),
         "neither a success nor a failure", entity=True),
)}


class PoisonedAnswers(Answers):
    """Answers some of which cannot be carried out, until it is told to mend that."""

    def __init__(self) -> None:
        """Begin with all poison."""
        super().__init__()
        self._mended = False
        self._first, self._last = prepared(scheduling(0)), prepared(ending(1))

    def hear(self, line: str) -> None:
        """Mend it when told so."""
        self._mended |= line == MEND

    def actions(self, request: pb.OrchestratorRequest, name: str, text: str) -> bytes:
        """Return what a turn comes to."""
        if name != POISON:
            return super().actions(request, name, text)
        kind, later = KINDS[text], bool(request.pastEvents)
        if kind.entity:
            return self._last if later else prepared(calling(text, request.instanceId))
        if kind.later == later and not self._mended:
            return kind.answer
        return self._last if later else self._first

    def results(self, entity_id: str) -> bytes:
        """Return what a batch comes to."""
        kind = KINDS.get(entity_id[1:].partition("@")[0])
        return super().results(entity_id) if kind is None or self._mended else kind.answer


if __name__ == "__main__":
    uvloop.run(work(sys.argv[2], PoisonedAnswers()))
