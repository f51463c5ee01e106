"""How long work that was given back waits before it is offered again."""

_FIRST_SECONDS = 1.0
_LAST_SECONDS = 60.0
REPORT_ABANDONS = 100


def delay_seconds(times: int) -> float:
    """Return the delay after having been given back so many times in a row: 1 s doubling to 60 s."""
    return min(_LAST_SECONDS, _FIRST_SECONDS * 2.0 ** min(times - 1, 10))
