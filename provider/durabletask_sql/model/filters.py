"""Which work an executor takes, by kind, name and version (the protocol's work-item filters). Values."""

from collections.abc import Iterable
from dataclasses import dataclass


def fold_version(version: str | None) -> str:
    """Return a version as it is compared: whatever its case, and none at all as ""."""
    return version.casefold() if version else ""


@dataclass(frozen=True, slots=True)
class NameFilter:
    """Names, each with a version (folded) that is taken, or None for any. The same name may be there several times."""

    entries: frozenset[tuple[str, str | None]]

    def takes(self, name: str, version: str | None) -> bool:
        """Tell whether an item of this name and version is taken."""
        return (name, None) in self.entries or (name, fold_version(version)) in self.entries


def name_filter(names: Iterable[tuple[str, Iterable[str]]]) -> NameFilter:
    """Return the filter for names with the versions taken of each; no versions means any."""
    entries: set[tuple[str, str | None]] = set()
    for name, versions in names:
        folded = [fold_version(version) for version in versions]
        entries.update((name, version) for version in folded)
        if not folded:
            entries.add((name, None))
    return NameFilter(frozenset(entries))


@dataclass(frozen=True, slots=True)
class WorkFilters:
    """A filter for each kind of work; None takes everything of that kind. Entity names are lower-case, unversioned."""

    orchestrations: NameFilter | None = None
    activities: NameFilter | None = None
    entities: NameFilter | None = None
