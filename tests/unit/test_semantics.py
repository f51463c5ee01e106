"""docs/semantics.md names tests that exist, and each behaviour has one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "semantics.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)
CHECKLIST = TEXT.partition("\n## Checklist\n")[2].partition("\n## ")[0]
ROWS = [line for line in TEXT.splitlines() if re.match(r"\| (S-\d|wire )", line)]


def test_every_test_that_it_names_exists():
    found: dict[str, set[str]] = {}
    for path, name in NAMED:
        if path not in found:
            tree = ast.parse((ROOT / path).read_text())
            found[path] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in found[path], f"{path}::{name}"


def test_every_behaviour_names_a_test():
    assert len(ROWS) > 80
    assert [row for row in ROWS if "::test_" not in row] == []


def test_every_scenario_of_the_references_has_a_test_or_a_reason():
    rows = [line.split(" | ") for line in CHECKLIST.splitlines() if line.startswith("| ") and line != "| theirs | ours |"]
    assert len(rows) > 100
    assert [row for row in rows if len(row) != 2 or not ("::test_" in row[1] or row[1].startswith("does not apply: "))] == []
