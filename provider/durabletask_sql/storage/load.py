"""One load: scan, claim, fresh reads, due timers, unclaimed activity tasks, in one transaction."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from durabletask_sql.ids import is_entity
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import ActivityRow, MessageKind, QueueRow, TimerRow
from durabletask_sql.partitions.shares import rooms
from durabletask_sql.ports.committer import FreshEntity, FreshInstance, Load, Loaded
from durabletask_sql.storage import entity_statements as entity_sql
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.codec import decode_instance
from durabletask_sql.storage.dialect import Row, Statement
from durabletask_sql.storage.session import Reply, Session
from durabletask_sql.storage.task_claims import TaskClaims


@dataclass(slots=True)
class _Found:
    claims: list[InstanceKey] = field(default_factory=list)
    fresh: list[InstanceKey] = field(default_factory=list)
    scan_full: set[int] = field(default_factory=set)


class LoadAttempt:
    """A load on its way through one transaction."""

    def __init__(self, session: Session, hub_id: int, load: Load) -> None:
        """Take the parts."""
        self._session = session
        self._hub = hub_id
        self._load = load
        self._tasks = TaskClaims(session, hub_id, load)

    @property
    def can_trust(self) -> bool:
        """Whether it is known beforehand what will be read, so that one flush is enough."""
        return not self._load.scan and not self._load.activities

    def run_trusting(self) -> Loaded:
        """Claim and read in one flush, on the understanding that the partitions are ours.

        Raises ShortWriteError, and nothing has happened, when one is not.
        """
        load = self._load
        needed = frozenset(load.epochs) if load.timer_limit else frozenset(
            key.partition for key in (*load.claims, *load.fresh)) & load.epochs.keys()
        self._session.begin(durable=False)
        self._send(sql.HOLD_PARTITIONS, [(partition, load.epochs[partition]) for partition in sorted(needed)],
                   owner=load.host_id)
        return self._claim_and_read(needed, self._choose(needed, {}), frozenset())

    def run(self) -> Loaded:
        """Claim and read; partitions that are not ours any more are left alone and named."""
        load = self._load
        # A lost claim does no harm: the row is then held by nobody, and a crash of the database comes out at the next
        # transaction or poll, upon which the owner raises its epochs and starts from the database.
        self._session.begin(durable=False)
        partitions = self._send(sql.LOCK_PARTITIONS, [(partition,) for partition in sorted(load.epochs)])
        scans = {partition: self._scan(partition, room) for partition, room in sorted(load.scan.items())}
        self._tasks.look()
        self._session.flush()
        ours = frozenset(partition for partition, owner, epoch in partitions.rows
                         if owner == load.host_id and epoch == load.epochs[partition])
        found = self._choose(ours, scans)
        return self._claim_and_read(ours, found, frozenset(load.epochs) - ours)

    def _send(self, statement: Statement, rows: Iterable[Row], **scalars: object) -> Reply:
        listed = list(rows)
        return self._session.send(statement, listed, hub=self._hub, **scalars) if listed else Reply()

    def _scan(self, partition: int, room: int) -> Reply:
        """Look for rows that nobody holds. Those of full instances are left out here: they would fill the reply."""
        load = self._load
        full = sorted(key.instance_id for key in load.full if key.partition == partition)
        given: dict[str, object] = {"hub": self._hub, "partition": partition, "room": room,
                                    "epoch": load.epochs[partition]}
        return (self._session.send(sql.SCAN_OTHERS, **given, full=json.dumps(full)) if full
                else self._session.send(sql.SCAN, **given))

    def _choose(self, ours: frozenset[int], scans: dict[int, Reply]) -> _Found:
        """Put together which instances are claimed as they are and which are read afresh."""
        load, found = self._load, _Found()
        claims = dict.fromkeys(key for key in load.claims if key.partition in ours)
        fresh = dict.fromkeys(key for key in load.fresh if key.partition in ours)
        for partition, reply in scans.items():
            if partition not in ours:
                continue
            if len(reply.rows) == load.scan[partition]:
                found.scan_full.add(partition)
            for key in dict.fromkeys(InstanceKey(partition, row[0]) for row in reply.rows):
                (claims if key in load.warm else fresh)[key] = None
        found.fresh = sorted(fresh)
        found.claims = sorted(key for key in claims if key not in fresh)
        return found

    def _with_epochs(self, keys: Iterable[InstanceKey]) -> list[Row]:
        return [(*key, self._load.epochs[key.partition]) for key in keys]

    def _claim_and_read(self, ours: frozenset[int], found: _Found, lost: frozenset[int]) -> Loaded:
        load = self._load
        wanted = sorted((*found.claims, *found.fresh))
        keys = self._with_epochs(wanted)
        instances = [key for key in found.fresh if not is_entity(key.instance_id)]
        entities = [key for key in found.fresh if is_entity(key.instance_id)]
        claimed = self._send(sql.CLAIM, [(*row, room) for row, room in zip(
            keys, rooms(wanted, load.share, load.left, load.free), strict=True)])
        ceilings = self._send(sql.CEILINGS, keys)
        held = self._send(sql.HELD, self._with_epochs(instances))
        held_share = self._send(entity_sql.HELD_SHARE, self._with_epochs(entities), share=load.share + 1)
        held_timers = self._send(sql.HELD_TIMERS, self._with_epochs(found.fresh))
        rows = self._send(sql.FRESH_INSTANCES, instances)
        history = self._send(sql.FRESH_HISTORY, instances)
        states = self._send(entity_sql.FRESH_ENTITIES, entities)
        timers = [self._session.send(sql.CLAIM_TIMERS, hub=self._hub, partition=partition,
                                     epoch=load.epochs[partition], horizon=load.timer_horizon, room=load.timer_limit)
                  for partition in sorted(ours) if load.timer_limit]
        self._tasks.claim()
        self._session.commit()
        tasks, tasks_full = self._tasks.reply()
        kept, hidden = _within_share(held_share, load.share)
        return Loaded(
            claimed=_together(claimed, held, kept, frozenset(entities)),
            ceilings=_ceilings((*found.claims, *found.fresh), ceilings),
            fresh=(*_fresh(instances, rows, history), *_fresh_entities(entities, states, hidden)),
            timers=timer_rows((held_timers, *timers)), activities=task_rows(tasks),
            scan_full=frozenset(found.scan_full),
            timers_full=any(len(reply.rows) >= load.timer_limit for reply in timers),
            activities_full=tasks_full,
            lost_partitions=lost)


def _together(claimed: Reply, held: Reply, kept: Iterable[QueueRow], entities: frozenset[InstanceKey]
              ) -> tuple[QueueRow, ...]:
    """Rows just claimed and rows held already: read behind the claim, the second statement sees both.

    Of entities read afresh only what was read counts: the lowest rows, whether they are claimed anew or held already.
    """
    rows = {row.seq: row for row in _queue_rows(claimed) if row.key not in entities}
    rows.update({row.seq: row for row in (*_queue_rows(held), *kept)})
    return tuple(rows[seq] for seq in sorted(rows))


def _queue_rows(reply: Reply) -> tuple[QueueRow, ...]:
    """Return control-queue rows in order of sequence (RETURNING has none)."""
    rows = [QueueRow(seq, InstanceKey(partition, instance_id), execution_id, MessageKind(kind), events, failed)
            for partition, seq, instance_id, execution_id, kind, events, failed in reply.rows]
    return tuple(sorted(rows, key=lambda row: row.seq))


def _within_share(held: Reply, share: int) -> tuple[list[QueueRow], dict[InstanceKey, int]]:
    """Keep each entity's share of its held rows; return where the others begin."""
    kept: list[QueueRow] = []
    counts: dict[InstanceKey, int] = {}
    hidden: dict[InstanceKey, int] = {}
    for row in _queue_rows(held):
        if row.kind is not MessageKind.AHEAD:
            counts[row.key] = counts.get(row.key, 0) + 1
            if counts[row.key] > share:
                hidden.setdefault(row.key, row.seq)
                continue
        kept.append(row)
    return kept, hidden


def _fresh_entities(keys: Iterable[InstanceKey], rows: Reply, hidden: dict[InstanceKey, int]
                    ) -> tuple[FreshEntity, ...]:
    found = {row.key: row for row in map(entity_sql.decode_entity, rows.rows)}
    return tuple(FreshEntity(key, found.get(key), hidden.get(key)) for key in keys)


def _ceilings(keys: Iterable[InstanceKey], reply: Reply) -> dict[InstanceKey, int | None]:
    found: dict[InstanceKey, int | None] = dict.fromkeys(keys)
    found.update({InstanceKey(partition, instance_id): seq for partition, instance_id, seq in reply.rows})
    return found


def _fresh(keys: Iterable[InstanceKey], rows: Reply, history: Reply) -> tuple[FreshInstance, ...]:
    instances = {row.key: row for row in map(decode_instance, rows.rows)}
    parts: dict[InstanceKey, list[bytes]] = {}
    gaps: dict[InstanceKey, dict[int, bytes]] = {}
    for partition, instance_id, events, refs in history.rows:
        key = InstanceKey(partition, instance_id)
        found = parts.setdefault(key, [])
        if refs is not None:
            gaps.setdefault(key, {})[len(found)] = refs
        found.append(events)
    return tuple(FreshInstance(key, instances.get(key), tuple(parts.get(key, ())), gaps.get(key, {})) for key in keys)


def timer_rows(replies: Iterable[Reply]) -> tuple[TimerRow, ...]:
    """Return timers as values."""
    return tuple(TimerRow(seq, InstanceKey(partition, instance_id), execution_id, MessageKind(kind), *rest)
                 for reply in replies for partition, seq, instance_id, execution_id, kind, *rest in reply.rows)


def task_rows(reply: Reply) -> tuple[ActivityRow, ...]:
    """Return activity tasks as values, oldest first."""
    rows = [ActivityRow(seq, InstanceKey(partition, instance_id), *rest)
            for partition, seq, instance_id, *rest in reply.rows]
    return tuple(sorted(rows, key=lambda row: row.seq))
