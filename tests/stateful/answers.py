"""What workers say in the stateful test: answers that count, late ones, wrong ones, and work that is given back."""

from __future__ import annotations

from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.ports.work import ActivityItem
from durabletask_sql.protocol import taskhub_pb2 as pb
from stateful.bench import OfferedTurn
from stateful.model import Model, Taken
from stateful.script import Replay
from stateful.words import action, word

LONGEST_DELAY = 61 * MICROSECONDS  # of what was given back, or whose answer was none
_MOST_INVALID = 3  # of the five after which messages are set aside


class Answers:
    """The workers' side of a `Stage`."""

    def answer_turn(self, turn: OfferedTurn) -> None:
        """Answer a turn; one that was answered before, or is stale, changes nothing."""
        taken = self._take(turn)
        answer = Replay().run(turn.past, turn.new, turn.time)
        self.invalid.pop(turn.instance, None)

        def effect(model: Model) -> None:
            if taken is not None and model.is_current(taken):
                model.commit(taken, answer.actions, answer.note, self.clock.now())

        response = pb.OrchestratorResponse(instanceId=turn.instance, completionToken=turn.token)
        if answer.note is not None:
            response.customStatus.value = answer.note
        response.actions.extend(action(said) for said in answer.actions)
        self.step(lambda: self.board.complete_turn(response), effect)

    def _take(self, turn: OfferedTurn) -> Taken | None:
        """Take a turn from whoever holds it; return what it takes, if an answer to it counts."""
        for bench in self.benches.values():
            if bench.turns.pop(turn.token, None) is not None:
                self.spent.append(turn)
        taken, self.turns[turn.token] = self.turns[turn.token], None
        return taken

    def abandon_turn(self, turn: OfferedTurn) -> None:
        """Give a turn back: it comes again, after a while."""
        self._take(turn)
        self._rest_until(turn.instance)
        self._without_effect(lambda: self.board.abandon_turn(turn.token))

    def answer_invalidly(self, turn: OfferedTurn) -> None:
        """Answer a turn with what cannot be carried out, less often than has its messages set aside."""
        if self.invalid.get(turn.instance, 0) < _MOST_INVALID:
            self._take(turn)
            self.invalid[turn.instance] = self.invalid.get(turn.instance, 0) + 1
            self._rest_until(turn.instance)
            response = pb.OrchestratorResponse(instanceId=turn.instance, completionToken=turn.token,
                                               actions=[pb.OrchestratorAction(id=1)])
            self._without_effect(lambda: self.board.complete_turn(response))

    def abandon_task(self, item: ActivityItem) -> None:
        """Give an activity task back, likewise."""
        for bench in self.benches.values():
            bench.tasks.pop(item.token, None)
        self.spent_tasks.append(item)
        self._rest_until(input_of(item))
        self._without_effect(lambda: self.board.abandon_activity(item.token))

    def _rest_until(self, name: str) -> None:
        self.resting[name] = self.clock.now() + LONGEST_DELAY

    def _without_effect(self, operation) -> None:
        self.step(operation, lambda _: None)

    def answer_task(self, item: ActivityItem, *, fails: bool, size: int = 0) -> None:
        """Answer an activity task; the first answer counts, unless nobody waits for it.

        Whether one counts that comes after its task was given back or lost depends on who has claimed it meanwhile.
        """
        known_by = input_of(item)
        row, result = item.row, f"done {known_by}" + "x" * size
        answer = pb.ActivityResponse(instanceId=row.key.instance_id, taskId=row.task_id, completionToken=item.token)
        if fails:
            answer.failureDetails.errorType, answer.failureDetails.errorMessage = "TaskError", result
        else:
            answer.result.value = result
        current = any(item.token in self.benches[name].tasks for name in self.connected)
        for bench in self.benches.values():
            if bench.tasks.pop(item.token, None) is not None:
                self.spent_tasks.append(item)

        def effect(model: Model) -> None:
            if known_by in model.tasks:
                model.finish_task(known_by, *(("task failed", "TaskError", result) if fails else ("task done", result)))

        self.step(lambda: self.board.complete_activity(answer), effect, uncertain=not current)


def input_of(item: ActivityItem) -> str:
    """Return what an activity task is known by: no other has its input."""
    return str(word(pb.HistoryEvent.FromString(item.row.event))[3])
