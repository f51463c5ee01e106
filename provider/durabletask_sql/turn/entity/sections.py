"""The critical sections of an execution: which are open, and what frees them when they end, however they end (S-344)."""

from collections.abc import Iterable, Sequence

from durabletask_sql.ids import partition_of
from durabletask_sql.model.entities import LockOwner
from durabletask_sql.model.instances import CriticalSection, InstanceKey, InstanceRow
from durabletask_sql.model.messages import MessageKind, NewMessage
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import event_kind, iter_frames
from durabletask_sql.turn.entity.messages import Release, write_release

_GRANTED = pb.HistoryEvent.ENTITYLOCKGRANTED_FIELD_NUMBER
_RAISED = pb.HistoryEvent.EVENTRAISED_FIELD_NUMBER


def with_grants(sections: Sequence[CriticalSection], new_events: bytes) -> list[CriticalSection]:
    """Return the sections as they are once a turn has seen these events."""
    waiting = {section.section_id for section in sections if not section.granted}
    if not waiting:
        return list(sections)
    told = set()
    for body in iter_frames(new_events):
        kind = event_kind(body)
        if kind == _GRANTED:
            told.add(pb.HistoryEvent.FromString(body).entityLockGranted.criticalSectionId)
        elif kind == _RAISED:  # the older form's grant: an event called as the section
            told.add(pb.HistoryEvent.FromString(body).eventRaised.name)
    return [section._replace(granted=True) if section.section_id in told else section for section in sections]


def holds(sections: Iterable[CriticalSection], entity_id: str) -> bool:
    """Tell whether the execution knows that it holds an entity's lock."""
    return any(section.granted and entity_id in section.entities for section in sections)


def unlock(sections: list[CriticalSection], row: InstanceRow, section_id: str, entity_id: str, now: int,
           partition_count: int) -> list[NewMessage]:
    """Leave a section as far as one entity is concerned, and return the messages that free it.

    A section whose locks were not granted yet is left as a whole: its request is on its way.
    """
    for at, section in enumerate(sections):
        if section.section_id != section_id or entity_id not in section.entities:
            continue
        left = tuple(one for one in section.entities if one != entity_id) if section.granted else ()
        freed = section._replace(entities=(entity_id,)) if section.granted else section
        sections[at:at + 1] = [section._replace(entities=left)] if left else []
        return releases((freed,), row, now, partition_count)
    return []


def releases(sections: Iterable[CriticalSection], row: InstanceRow, now: int, partition_count: int
             ) -> list[NewMessage]:
    """Return the messages that free or cancel everything that these sections of an execution hold or ask for."""
    sent = []
    for section in sections:
        owner = LockOwner(row.instance_id, row.execution_id, section.section_id)
        if section.granted:
            freed = [(entity_id, Release(owner)) for entity_id in section.entities]
        else:
            freed = [(section.entities[0], Release(owner, section.entities, 0))]
        sent += [release_message(entity_id, release, now, partition_count) for entity_id, release in freed]
    return sent


def release_message(entity_id: str, release: Release, now: int, partition_count: int) -> NewMessage:
    """Return the message that carries a release to an entity; it does not wait behind a lock."""
    key = InstanceKey(partition_of(entity_id, partition_count), entity_id)
    return NewMessage(key, release.owner.execution_id, MessageKind.AHEAD, write_release(release, entity_id, now))
