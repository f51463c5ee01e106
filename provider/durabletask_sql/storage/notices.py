"""News as the payloads of PostgreSQL's notifications: JSON, each small enough for one."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from durabletask_sql.ids import partition_of
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.ports.wakeups import News

_PAYLOAD_BYTES = 7_900  # PostgreSQL takes less than 8,000
_MANY = 100


@dataclass(frozen=True, slots=True)
class Notice:
    """What one payload says: who sent it, and the news (none: it is a beat, by which hosts know of each other)."""

    host_id: int
    news: News


def encode_notices(host_id: int, news: News) -> list[str]:
    """Return news as payloads. Work for many instances is told by partition: their owner scans it.

    What does not fit into one (a long id, of which JSON escapes every character) becomes a notice to look everywhere.
    """
    work, scan = news.work, news.scan
    if len(work) > _MANY:
        work, scan = frozenset(), scan | {key.partition for key in work}
    head: dict[str, object] = {"from": host_id}
    if scan:
        head["scan"] = sorted(scan)
    if news.delayed:
        head["delayed"] = sorted(news.delayed)
    if news.tasks:
        head["tasks"] = True
    if news.anything:
        head["anything"] = True
    parts = [*_parts("work", host_id, work), *_parts("changed", host_id, news.changed)]
    if len(head) > 1 or not parts:
        parts.append(head)
    texts = [json.dumps(part, separators=(",", ":")) for part in parts]
    anything = json.dumps({"from": host_id, "anything": True}, separators=(",", ":"))
    return list(dict.fromkeys(text if len(text) <= _PAYLOAD_BYTES else anything for text in texts))


def _parts(name: str, host_id: int, keys: Iterable[InstanceKey]) -> Iterator[dict[str, object]]:
    """Yield ids in lists that fit."""
    listed, size = list[str](), 0
    for key in sorted(keys):
        cost = len(json.dumps(key.instance_id)) + 1  # ASCII: what JSON escapes counts as it is sent
        if listed and size + cost > _PAYLOAD_BYTES - 100:
            yield {"from": host_id, name: listed}
            listed, size = [], 0
        listed.append(key.instance_id)
        size += cost
    if listed:
        yield {"from": host_id, name: listed}


def decode_notice(payload: str, partition_count: int) -> Notice | None:
    """Return what a payload says, None for what is none of ours."""
    try:
        found = json.loads(payload)
        def keys(name: str) -> frozenset[InstanceKey]:
            return frozenset(InstanceKey(partition_of(one, partition_count), one) for one in found.get(name, ()))

        return Notice(int(found["from"]), News(
            keys("work"), frozenset(map(int, found.get("scan", ()))), frozenset(map(int, found.get("delayed", ()))),
            bool(found.get("tasks")), keys("changed"), bool(found.get("anything"))))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
