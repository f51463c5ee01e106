"""Which languages a test is about."""

from __future__ import annotations

from typing import Any

import pytest

MARKS = {"java": pytest.mark.java, "go": pytest.mark.go}


def languages(*names: str) -> Any:
    """Run a test on what the scenarios of each of these languages `seen`."""
    return pytest.mark.parametrize("seen", [pytest.param(name, marks=MARKS.get(name, ())) for name in names], indirect=True)


every = languages("javascript", "java", "go")


def completed(output: Any) -> dict[str, Any]:
    """What a client sees of an instance that completed."""
    return {"status": "COMPLETED", "output": output, "failure": None}


def terminated(output: Any) -> dict[str, Any]:
    """What a client sees of an instance that was terminated."""
    return {"status": "TERMINATED", "output": output, "failure": None}
