"""Claiming unclaimed activity tasks, by the names that somebody here takes, and giving claimed ones back.

Which of the names that are asked for have tasks at all is found first, by one probe of an index each, so that a worker
with hundreds of names costs two statements while nothing waits for it.
"""

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import ColumnElement, and_, bindparam, exists, func, literal_column, select, update
from sqlalchemy.sql.selectable import FromClause

from durabletask_sql.ports.claims import ActivityClaim
from durabletask_sql.ports.committer import Load
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.dialect import (
    BIGINT,
    TEXT,
    Executable,
    Statement,
    hub_of,
    in_order,
    in_rows,
    keyed,
    no_source,
    rows_of,
)
from durabletask_sql.storage.lease_statements import LOCK_HOST
from durabletask_sql.storage.session import Reply, Session
from durabletask_sql.storage.tables import activity_queue


def _waiting(*names: str) -> Callable[[FromClause], Executable]:
    """Return those rows of the source for which there are unclaimed tasks."""
    def build(v: FromClause) -> Executable:
        task = exists(select(literal_column("1")).select_from(activity_queue).where(
            activity_queue.c.hub_id == hub_of(v), activity_queue.c.host == sql.ZERO,
            *(activity_queue.c[name] == v.c[name] for name in names)))
        return select(*(v.c[name] for name in names)).select_from(v).where(task)
    return build


def _claim(*names: str) -> Callable[[FromClause], Executable]:
    """Claim the oldest unclaimed tasks of any name, of one name, or of one name in one version."""
    def build(v: FromClause) -> Executable:
        free = activity_queue.alias("free")
        conditions: list[ColumnElement[bool]] = [free.c[name] == bindparam(name, type_=TEXT) for name in names]
        picked = (select(*rows_of(free))
                  .where(free.c.hub_id == sql.HUB, free.c.host == sql.ZERO, *conditions,
                         func.length(free.c.event) <= bindparam("bytes", type_=BIGINT))
                  .order_by(free.c.seq).limit(bindparam("room", type_=BIGINT)).with_for_update(skip_locked=True))
        return (update(activity_queue).where(in_rows(activity_queue, v, picked))
                .values(host=bindparam("owner", type_=BIGINT), token=bindparam("claim", type_=BIGINT))
                .returning(*sql.TASK_ROW))
    return build


_NAME, _VERSION = {"name": TEXT}, {"name": TEXT, "version": TEXT}
WAITING_NAMES = Statement("activity_queue", _waiting(*_NAME), _NAME)
WAITING_VERSIONS = Statement("activity_queue", _waiting(*_VERSION), _VERSION)
CLAIM_ANY = Statement("activity_queue", _claim())
CLAIM_NAME = Statement("activity_queue", _claim(*_NAME))
CLAIM_VERSION = Statement("activity_queue", _claim(*_VERSION))


def _count_unclaimed() -> Executable:
    oldest = (select(activity_queue.c.name, activity_queue.c.version)
              .where(activity_queue.c.hub_id == sql.HUB, activity_queue.c.host == sql.ZERO)
              .order_by(activity_queue.c.seq).limit(bindparam("room", type_=BIGINT))).subquery("oldest")
    return select(oldest.c.name, oldest.c.version, func.count()).group_by(oldest.c.name, oldest.c.version)


COUNT_UNCLAIMED = Statement("activity_queue", no_source(_count_unclaimed))

GIVE_BACK = Statement("activity_queue", lambda v: (
    update(activity_queue)
    .where(keyed(activity_queue, sql.held_tasks(v, skip_locked=False), "token"),
           activity_queue.c.host == bindparam("owner", type_=BIGINT))
    .values(host=0, token=0)), {**sql.SEQS, "token": BIGINT})


RELEASE_CLAIMS = Statement("activity_queue", lambda v: (
    update(activity_queue)
    .where(in_order(activity_queue, v, lambda task: and_(
        task.c.hub_id == sql.HUB, task.c.host > sql.ZERO, task.c.host == bindparam("owner", type_=BIGINT),
        task.c.token.in_(select(v.c.token)))))
    .values(host=0, token=0)), {"token": BIGINT})


class TaskClaims:
    """The activity part of a load: `look` goes with its first flush, `claim` with its second."""

    def __init__(self, session: Session, hub_id: int, load: Load) -> None:
        """Take the parts."""
        self._session = session
        self._hub = hub_id
        self._load = load
        self._host = Reply()
        self._waiting: list[Reply] = []
        self._claimed: list[tuple[int, Reply]] = []

    def look(self) -> None:
        """Ask which of the names have tasks, and hold this host's row: who does not live claims nothing."""
        claims = self._load.activities
        if claims:
            self._host = self._session.send(LOCK_HOST, hub=self._hub, me=self._load.host_id)
        names = [(claim.name,) for claim in claims if claim.name is not None and claim.version is None]
        versions = [(claim.name, claim.version) for claim in claims if claim.version is not None]
        self._waiting = [self._session.send(statement, rows, hub=self._hub)
                         for statement, rows in ((WAITING_NAMES, names), (WAITING_VERSIONS, versions)) if rows]

    def claim(self) -> None:
        """Claim what is there; the names of one claim's room share it."""
        if not self._host.rows:
            return
        waiting = {row for reply in self._waiting for row in reply.rows}
        named = [claim for claim in self._load.activities if self._key(claim) in waiting]
        every = [claim for claim in self._load.activities if claim.name is None]
        for claim in (*every, *(replace(claim, room=-(-claim.room // len(named))) for claim in named)):
            self._claimed.append((claim.room, self._send(claim)))

    @staticmethod
    def _key(claim: ActivityClaim) -> tuple[str | None, ...]:
        return (claim.name,) if claim.version is None else (claim.name, claim.version)

    def _send(self, claim: ActivityClaim) -> Reply:
        statement = CLAIM_ANY if claim.name is None else CLAIM_NAME if claim.version is None else CLAIM_VERSION
        given = {name: value for name, value in (("name", claim.name), ("version", claim.version)) if value is not None}
        return self._session.send(statement, hub=self._hub, room=claim.room, bytes=claim.event_bytes,
                                  owner=self._load.host_id, claim=self._load.claim_token, **given)

    def reply(self) -> tuple[Reply, bool]:
        """Return the claimed tasks, after the flush, and whether there may be more."""
        rows = [row for _, reply in self._claimed for row in reply.rows]
        return Reply(rows), any(len(reply.rows) == room for room, reply in self._claimed)
