"""How many messages a claim may bring into memory: what an instance's share leaves, and a part of its partition's room."""

from collections import Counter
from collections.abc import Collection, Mapping

from durabletask_sql.ids import is_entity
from durabletask_sql.model.instances import InstanceKey

FEW = 10  # whatever the room: so that everybody gets on


def rooms(keys: Collection[InstanceKey], share: int, left: Mapping[InstanceKey, int], free: Mapping[int, int]
          ) -> list[int]:
    """Return for each of the instances that are claimed together how many messages it may get.

    `left` is what those that have some have left of their share, `free` for how many messages each partition has room.
    Entities have their share in any case: of what waits for a lock they keep nothing in memory.
    """
    claimed = Counter(key.partition for key in keys)
    found = []
    for key in keys:
        most = left.get(key, share)
        if key.partition in free and not is_entity(key.instance_id):
            most = min(most, max(FEW, free[key.partition] // claimed[key.partition]))
        found.append(max(0, most))
    return found
