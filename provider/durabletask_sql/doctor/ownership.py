"""Who serves a hub: one live lease a partition, no claims of hosts that are gone, nothing held from the future."""

from collections.abc import Iterable

from durabletask_sql.doctor.findings import Finding, Level, LowerHeld, ReleaseClaims
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.inspection import Ownership

_START = "start a server of the hub: it takes over what is free"
_LOOK = "look whether the live servers report errors: they should have taken it over"
_DAMAGE = "this is a bug or damage: keep the database and report it"


def is_served(seen: Ownership) -> bool:
    """Tell whether a live host owns every partition."""
    live = {host.host_id for host in seen.hosts if host.left_seconds > 0}
    return bool(seen.partitions) and all(partition.owner in live for partition in seen.partitions)


def lease_seconds(seen: Ownership) -> float:
    """Return how long it may take until live hosts have taken over what is free; 0 without live hosts."""
    return max((host.lease_seconds for host in seen.hosts if host.left_seconds > 0), default=0.0)


def check_ownership(hub: TaskHub, seen: Ownership) -> list[Finding]:
    """Check partitions, hosts and claims."""
    return [*_check_count(hub, seen), *_check_owners(hub, seen), *_check_claims(seen), *_check_held(seen)]


def _check_count(hub: TaskHub, seen: Ownership) -> Iterable[Finding]:
    found, wanted = {partition.partition for partition in seen.partitions}, set(range(hub.partition_count))
    if found != wanted:
        missing, more = sorted(wanted - found), sorted(found - wanted)
        yield Finding("leases", f"task hub {hub.name}", f"it has {hub.partition_count} partitions; without a row: "
                      f"{missing or 'none'}, beyond them: {more or 'none'}", _DAMAGE)


def _check_owners(hub: TaskHub, seen: Ownership) -> Iterable[Finding]:
    hosts = {host.host_id: host for host in seen.hosts}
    live = {host.host_id for host in seen.hosts if host.left_seconds > 0}
    if not live:
        yield Finding("leases", f"task hub {hub.name}", "no server serves it", _START, Level.NOTE)
        return
    for partition in seen.partitions:
        if partition.owner in live:
            continue
        if partition.owner == 0:
            why = "nobody owns it"
        elif partition.owner in hosts:
            host = hosts[partition.owner]
            why = f"the lease of its owner {host.name} ran out {-host.left_seconds:.0f} s ago"
        else:
            why = f"its owner {partition.owner:x} is gone"
        yield Finding("leases", f"partition {partition.partition}", f"{why}, although {len(live)} servers live", _LOOK,
                      passing=True)


def _check_claims(seen: Ownership) -> Iterable[Finding]:
    known = {host.host_id for host in seen.hosts}
    lives = any(host.left_seconds > 0 for host in seen.hosts)
    for host_id, count in seen.claims.items():
        if host_id not in known:
            yield Finding("claims", f"host {host_id:x}", f"it is gone and still has claimed {count} activity tasks",
                          "a server takes them back when it takes over; `doctor --repair` gives them back",
                          Level.PROBLEM if lives else Level.NOTE, passing=True, repair=ReleaseClaims(host_id))


def _check_held(seen: Ownership) -> Iterable[Finding]:
    epochs = {partition.partition: partition.epoch for partition in seen.partitions}
    for (table, partition), count in seen.held.items():
        yield Finding("epochs", f"partition {partition}", f"{count} rows of {table} are held under an epoch above its "
                      f"epoch {epochs.get(partition)}: no owner will ever find them",
                      "`doctor --repair` has nobody hold them, so that the owner finds them",
                      repair=LowerHeld(table, partition))
