"""What workers say in the stateful test: answers that count, late ones, wrong ones, and work that is given back."""

from __future__ import annotations

from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.ports.work import ActivityItem
from durabletask_sql.protocol import taskhub_pb2 as pb
from stateful.bench import OfferedTurn
from stateful.instances import Taken
from stateful.model import Model
from stateful.script import Replay
from stateful.words import action, word

LONGEST_DELAY = 61 * MICROSECONDS  # of what was given back, or whose answer was none
MOST_LOST = 2  # losses, or answers that are none, in a row make no difference


class Answers:
    """The workers' side of a `Stage`."""

    def answer_turn(self, turn: OfferedTurn) -> None:
        """Answer a turn; one that was answered before, or is stale, changes nothing."""
        taken = self._take(turn)
        found = self.model.instances.get(turn.instance)
        answer = Replay(turn.execution, 0 if found is None else found.rewinds).run(turn.past, turn.new, turn.time)
        uncertain = turn.instance in self.stale
        self.stale.discard(turn.instance)
        now = self.clock.now()

        def effect(model: Model) -> None:
            if taken is not None and model.is_current(taken):
                model.commit(taken, answer.actions, answer.note, now)

        response = pb.OrchestratorResponse(instanceId=turn.instance, completionToken=turn.token)
        if answer.note is not None:
            response.customStatus.value = answer.note
        response.actions.extend(action(said) for said in answer.actions)
        self.step(lambda: self.board.complete_turn(response), effect, uncertain=uncertain)
        if taken is not None:
            self.note_delivery(turn.instance)

    def note_delivery(self, name: str) -> None:
        """Count how often in a row nothing came of what was out; a success ends that."""
        if self.calls.struck:
            self.losses[name] += 1
        else:
            del self.losses[name]

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
        if self.losses[turn.instance] < MOST_LOST and self._take(turn) is not None:
            self.losses[turn.instance] += 1
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
        if current:
            self.note_delivery(known_by)


def input_of(item: ActivityItem) -> str:
    """Return what an activity task is known by: no other has its input."""
    return str(word(pb.HistoryEvent.FromString(item.row.event))[3])
