"""All planted bugs."""

from __future__ import annotations

from simulation import planted_fences, planted_messages  # they name their bugs when they are imported
from simulation.planting import BUGS, planted

__all__ = ["BUGS", "planted", "planted_fences", "planted_messages"]
