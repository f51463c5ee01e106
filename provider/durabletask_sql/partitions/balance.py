"""Who should own which partition: a pure decision that every host makes for itself, from what it read.

Every live host is due the average, rounded down or up; those that hold most are due the rounded-up shares, so that
nothing moves once no two hosts differ by more than one. What is free, and what somebody has above its due, goes to the
hosts below theirs in one order that all compute alike, so that hosts which decide at the same moment want different
partitions.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from durabletask_sql.ports.leases import NOBODY, Lease


@dataclass(frozen=True, slots=True)
class Moves:
    """What a host does now: partitions to acquire, to ask their owners for, and to hand over (to whom).

    `awaits`: its owner has still to hand over a partition that this host asked for.
    """

    acquire: tuple[Lease, ...] = ()
    ask: tuple[Lease, ...] = ()
    hand_over: Mapping[int, int] = field(default_factory=dict)
    awaits: bool = False


def decide(me: int, live: Collection[int], leases: Sequence[Lease]) -> Moves:
    """Return what a host does, given who lives and who owns and is promised what; nothing if it does not live itself."""
    if me not in live:
        return Moves()
    promised = [lease for lease in leases if lease.next_owner == me and lease.owner != me]
    mine = [lease for lease, host in plan(live, leases) if host == me]
    return Moves(
        acquire=tuple(lease for lease in (*promised, *mine) if lease.owner not in live),
        ask=tuple(lease for lease in mine if lease.owner in live),
        hand_over={lease.partition: lease.next_owner for lease in leases
                   if lease.owner == me and lease.next_owner != me and lease.next_owner in live},
        awaits=any(lease.owner in live for lease in promised))


def heirs(me: int, live: Collection[int], leases: Sequence[Lease]) -> dict[int, int]:
    """Return who should get the partitions of a host that leaves; nothing when nobody else lives."""
    others = frozenset(live) - {me}
    planned = {lease.partition: host for lease, host in plan(others, leases)}
    return {lease.partition: holder(lease, others) or planned[lease.partition]
            for lease in leases if others and lease.owner == me}


def holder(lease: Lease, live: Collection[int]) -> int:
    """Return who counts as having a partition: whom it is promised to, else its owner, as far as they live."""
    return next((host for host in (lease.next_owner, lease.owner) if host in live), NOBODY)


def plan(live: Collection[int], leases: Sequence[Lease]) -> list[tuple[Lease, int]]:
    """Return which partitions should go to which hosts, beyond what is promised already."""
    if not live:
        return []
    counts = Counter(holder(lease, live) for lease in leases)
    due = shares(live, counts, len(leases))
    surplus = {host: counts[host] - due[host] for host in live}
    pool = [lease for lease in leases if holder(lease, live) == NOBODY]
    for lease in leases:
        host = holder(lease, live)
        if host == lease.owner and host in live and surplus[host] > 0:
            surplus[host] -= 1
            pool.append(lease)
    needy = [host for host in sorted(live) for _ in range(due[host] - counts[host])]
    return list(zip(pool, needy, strict=False))


def shares(live: Collection[int], counts: Mapping[int, int], total: int) -> dict[int, int]:
    """Return how many partitions each host is due: the average rounded up for those that have most, else down."""
    least, more = divmod(total, len(live))
    ranked = sorted(live, key=lambda host: (-counts.get(host, 0), host))
    return {host: least + (rank < more) for rank, host in enumerate(ranked)}
