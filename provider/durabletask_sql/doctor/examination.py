"""Examining a hub that moves: page by page, and what may be a moment's appearance a second and a third time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from durabletask_sql.doctor.belongings import check_belongings
from durabletask_sql.doctor.findings import DeleteRows, Finding, Level, LowerHeld, ReleaseClaims, Repair
from durabletask_sql.doctor.instances import check_instance
from durabletask_sql.doctor.locks import check_lock
from durabletask_sql.doctor.ownership import check_ownership, is_served, lease_seconds
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.inspection import TABLES, Inspection

PAUSES = (1.0, 4.0, 10.0)  # seconds before looking again at what may be a moment's appearance
_KEPT = 1_000  # findings of one check and level that are kept; the others are counted
_CHUNK_BYTES = 8 * 1024 * 1024
_MOVES = 5  # how often an instance is read again because it asked another entity meanwhile
_REPORT_EVERY = 10_000

Look = Callable[[], AsyncIterator[Finding]]


@dataclass(slots=True)
class Report:
    """What was found in a hub, how much of it, and what was repaired."""

    hub: str
    instances: int = 0
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[tuple[str, Level]] = field(default_factory=Counter)
    repaired: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Count a finding, and keep it as long as there are not too many."""
        self.counts[finding.check, finding.level] += 1
        if self.counts[finding.check, finding.level] <= _KEPT:
            self.findings.append(finding)

    @property
    def problems(self) -> int:
        """How many problems there are that were not repaired."""
        found = sum(count for (_, level), count in self.counts.items() if level is Level.PROBLEM)
        return found - sum(finding.level is Level.PROBLEM for finding in self.repaired)


class Examination:
    """The examination of one hub."""

    def __init__(self, hub: TaskHub, reads: Inspection, progress: Callable[[str], None],
                 pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Take the parts; `progress` is told where long work is."""
        self._hub = hub
        self._reads = reads
        self._progress = progress
        self._pause = pause
        self._served = False
        self._lease = 0.0
        self.report = Report(hub.name)

    async def run(self) -> Report:
        """Examine everything."""
        seen = await self._reads.ownership()
        self._served, self._lease = is_served(seen), lease_seconds(seen)
        # What is free is taken within a lease: a look before and one after it.
        await self._settle(self._ownership, (1.0, self._lease, 1.0))
        for partition in range(self._hub.partition_count):
            await self._instances(partition)
        self._progress(f"task hub {self._hub.name}: {self.report.instances} instances examined")
        await self._settle(self._locks, PAUSES)
        for table in TABLES:
            await self._settle(partial(self._belongings, table), PAUSES)
        return self.report

    async def repair(self) -> None:
        """Carry out the repairs of what was found; each looks again by itself, and what is no more is repaired too."""
        for finding in self.report.findings:
            if finding.repair is not None:
                await self._mend(finding.repair)
                self.report.repaired.append(finding)

    async def _mend(self, repair: Repair) -> int:
        match repair:
            case DeleteRows(belonging):
                return await self._reads.delete(belonging)
            case ReleaseClaims(host_id):
                return await self._reads.release_claims(host_id)
            case LowerHeld(table, partition):
                return await self._reads.lower_held(table, partition)
            case _:
                return await self._reads.release_lock(repair.entity_id)

    async def _settle(self, look: Look, pauses: Sequence[float]) -> None:
        """Look, and again after pauses, as long as something is there that may pass; report what stayed."""
        passing: dict[object, Finding] = {}
        async for finding in look():
            if finding.passing:
                passing[_identity(finding)] = finding
            else:
                self.report.add(finding)
        for seconds in pauses:
            if not passing:
                return
            await self._pause(seconds)
            again = {_identity(finding) async for finding in look() if finding.passing}
            passing = {identity: finding for identity, finding in passing.items() if identity in again}
        for finding in passing.values():
            self.report.add(finding)

    async def _ownership(self) -> AsyncIterator[Finding]:
        for finding in check_ownership(self._hub, await self._reads.ownership()):
            yield finding

    async def _instances(self, partition: int) -> None:
        after = ""
        while page := await self._reads.keys(partition, after):
            after = page[-1][0].instance_id
            for keys in _chunks(page):
                await self._chunk(keys)
                self.report.instances += len(keys)
                if self.report.instances % _REPORT_EVERY < len(keys):
                    self._progress(f"task hub {self._hub.name}: {self.report.instances} instances so far")

    async def _chunk(self, keys: Sequence[InstanceKey]) -> None:
        """Examine some instances; those that call or lock entities once more, together with these."""
        entities: frozenset[str] = frozenset()
        for _ in range(_MOVES):
            snapshot = await self._reads.snapshot(keys, sorted(entities))
            again, wanted = list[InstanceKey](), set[str]()
            for one in snapshot.instances:
                verdict = check_instance(one, snapshot, self._hub.partition_count, entities)
                if verdict.entities:
                    again.append(one.row.key)
                    wanted |= verdict.entities
                    continue
                for finding in verdict.findings:
                    self.report.add(finding)
            if not again:
                return
            keys, entities = again, frozenset(wanted)

    async def _locks(self) -> AsyncIterator[Finding]:
        for partition in range(self._hub.partition_count):
            after = ""
            while page := await self._reads.locks(partition, after):
                after = page[-1].entity.instance_id
                for lock in page:
                    for finding in check_lock(lock, self._hub.partition_count, served=self._served):
                        yield finding

    async def _belongings(self, table: str) -> AsyncIterator[Finding]:
        page = await self._reads.belongings(table, None)
        while True:
            for finding in check_belongings(page, self._hub.partition_count, served=self._served):
                yield finding
            if page.next is None:
                return
            page = await self._reads.belongings(table, page.next)


def _identity(finding: Finding) -> object:
    """What makes two findings of different moments the same: not the words, which may tell a time."""
    return finding.check, finding.subject, finding.repair


def _chunks(page: Sequence[tuple[InstanceKey, int]]) -> list[list[InstanceKey]]:
    """Part a page so that the histories of a part fit into so many bytes; a larger one goes alone."""
    chunks, size = [list[InstanceKey]()], 0
    for key, length in page:
        if chunks[-1] and size + length > _CHUNK_BYTES:
            chunks.append([])
            size = 0
        chunks[-1].append(key)
        size += length
    return chunks
