"""``THREAT_MODEL.md`` says which test shows what: here it is held to that."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "THREAT_MODEL.md").read_text(encoding="utf-8")


def names_of_tests() -> set[str]:
    return {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_test_named_in_the_threat_model_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert len(named) > 50
    assert sorted(named - names_of_tests()) == []


def test_every_threat_names_a_test_or_says_that_there_is_none() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("|")]
    shown = [row.rstrip("| ").rpartition("| ")[2] for row in rows if row.count("|") == 5]
    shown = [cell for cell in shown if not cell.endswith(("shown by", "---"))]
    assert shown
    for cell in shown:
        assert cell == "none" or cell.startswith("`test_"), cell
