"""Who may create an instance under an id that exists already: dedupe statuses (S-050 to S-065, S-102, S-413)."""

from dataclasses import dataclass
from enum import Enum

from durabletask_sql.model.status import LIVE, Status

DEFAULT_DEDUPE = LIVE


class Decision(Enum):
    """What a creation does."""

    CREATE = "create"
    REPLACE = "replace"
    KEEP = "keep"  # success without effect: the old policy form's IGNORE
    REFUSE = "refuse"
    INVALID = "invalid"  # would have to terminate the live one, whose outcome could then not be replaced


@dataclass(frozen=True, slots=True)
class CreationPolicy:
    """Statuses that refuse (`dedupe`) and, old policy form only, statuses in which creating does nothing (`ignore`)."""

    dedupe: frozenset[Status] = DEFAULT_DEDUPE
    ignore: frozenset[Status] = frozenset()

    def decide(self, existing: Status | None) -> Decision:
        """Return what to do when the id's current status is `existing` (None: the id is free)."""
        if existing is None:
            return Decision.CREATE
        if existing in self.ignore:
            return Decision.KEEP
        if existing in self.dedupe:
            return Decision.REFUSE
        if existing in LIVE and Status.TERMINATED in self.dedupe:
            return Decision.INVALID
        return Decision.REPLACE


CHILD_POLICY = CreationPolicy()
