"""What this host tells the others: gathered after each commit, sent when the line is free."""

import asyncio
import logging
from collections.abc import Collection

from durabletask_sql.errors import DurableTaskSqlError
from durabletask_sql.model.checkpoints import EntityCheckpoint, OutcomeKind, TurnCheckpoint
from durabletask_sql.ports.committer import Committed, Group
from durabletask_sql.ports.wakeups import News, Wakeups

_log = logging.getLogger(__name__)


class Notices:
    """News on its way to the other hosts of a task hub; what comes while some is being sent goes with the next."""

    def __init__(self, wakeups: Wakeups) -> None:
        """`run` sends."""
        self._wakeups = wakeups
        self._news: list[News] = []
        self._event = asyncio.Event()
        self._failing = False

    def tell(self, news: News) -> None:
        """Have news sent soon, if somebody else listens."""
        if news and self._wakeups.is_heard:
            self._news.append(news)
            self._event.set()

    def tell_of(self, group: Group, committed: Committed, live: Collection[int]) -> None:
        """Have sent what others should hear of a group; this is each group, so nothing is made that nobody hears."""
        if self._wakeups.is_heard:
            self.tell(news_of(group, committed, live))

    async def run(self) -> None:
        """Send until cancelled. What cannot be sent is left to the others' polls."""
        while True:
            await self._event.wait()
            self._event.clear()
            news, self._news = self._news, []
            try:
                await self._wakeups.tell(News.together(news))
                self._failing = False
            except DurableTaskSqlError as error:
                if not self._failing:
                    _log.warning("other hosts cannot be woken, they poll: %s", error)
                self._failing = True


def news_of(group: Group, committed: Committed, live: Collection[int]) -> News:
    """Return what others should hear of a group; `live` are the partitions that this host goes on owning."""
    delayed, changed = set[int](), set()
    for item, outcome in zip(group.items, committed.outcomes, strict=True):
        if outcome.kind is not OutcomeKind.COMMITTED:
            continue
        if isinstance(item, TurnCheckpoint) and (item.ended or _starts(item)):
            changed.add(item.key)
        if isinstance(item, TurnCheckpoint | EntityCheckpoint):
            delayed.update(timer.key.partition for timer in item.timers)
            delayed.update(child.row.partition for child in item.children if child.row.scheduled_at is not None)
    return News(work=frozenset(key for key in committed.unheld if key.partition not in live),
                delayed=frozenset(delayed.difference(live)), tasks=committed.unclaimed_activities,
                changed=frozenset(changed))


def _starts(turn: TurnCheckpoint) -> bool:
    return turn.history is not None and not turn.history.first_sequence
