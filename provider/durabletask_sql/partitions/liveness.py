"""Who lives: what one host makes of the others' heartbeats, by a clock of its own that nobody sets.

The database's clock may jump. Who was seen to live is therefore dead when its row has stood still for as long as it
asked to be believed, measured here; the database's time only tells how old a heartbeat was when it was first seen, as
long as that time has run like ours since the last look.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.ports.leases import Heartbeat, View

_JUMP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """For how many seconds more each live host is believed, and when the last heartbeat of each of the others came."""

    live: Mapping[int, float]
    dead: Mapping[int, int]


class Liveness:
    """What a host remembers of its looks. Times are seconds of its own clock, which nobody sets."""

    def __init__(self) -> None:
        """Nobody was seen yet."""
        self._believed: dict[int, tuple[Heartbeat, float]] = {}  # until when, for want of another heartbeat
        self._last: tuple[int, float] | None = None  # the database's time in the last look, and when that was asked for

    def judge(self, me: int, view: View, asked: float, answered: float) -> Verdict:
        """Return who lives, by a view that was asked for and answered at these times. `me` lives if it has a row."""
        jumped, believed = self._jumped_ahead(view.now, answered), {}
        for host, heartbeat in view.hosts.items():
            known = self._believed.get(host)
            if known is None or known[0] != heartbeat:
                known = heartbeat, answered + _seconds(heartbeat, view.now, jumped=jumped)
            believed[host] = known
        self._believed, self._last = believed, (view.now, asked)
        live = {host: until - answered for host, (heartbeat, until) in believed.items()
                if host == me or (until > answered and not heartbeat.gone)}
        return Verdict(live, {host: beat.at for host, beat in view.hosts.items() if host not in live})

    def _jumped_ahead(self, now: int, answered: float) -> bool:
        """Tell whether the database's time has gone on by more than there can have been between the two looks."""
        if self._last is None:
            return False
        before, asked = self._last
        return (now - before) / MICROSECONDS > answered - asked + _JUMP_SECONDS


def _seconds(heartbeat: Heartbeat, now: int, *, jumped: bool) -> float:
    """Return for how long a heartbeat counts that is seen for the first time: no longer than its sender wanted.

    One that seems older than it is, as the time has jumped meanwhile, counts from now on.
    """
    lease = heartbeat.expires_at - heartbeat.at
    return (lease if jumped else min(lease, heartbeat.expires_at - now)) / MICROSECONDS
