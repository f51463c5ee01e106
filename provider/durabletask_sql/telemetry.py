"""Logs: one line an event, on standard error."""

import logging
import sys

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def configure_logging(level: str) -> None:
    """Send this program's logs to standard error, from this level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_FORMAT))
    root = logging.getLogger("durabletask_sql")
    root.addHandler(handler)
    root.setLevel(level.upper())
    root.propagate = False
