"""docs/guarantees.md names tests that exist, every promise names one, and the known gaps are those expected to fail."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def functions_of(path: Path) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions of a module, by name."""
    nodes = ast.parse(path.read_text("utf-8")).body
    return {node.name: node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def rows(text: str) -> list[str]:
    """The lines of all tables, without their heads."""
    lines = text.splitlines()
    followed = zip(lines, [*lines[1:], ""], strict=True)
    return [line for line, after in followed if line.startswith("| ") and not after.startswith("|---")]


def test_every_promise_names_tests_that_exist() -> None:
    promises = rows(GUARANTEES)
    assert len(promises) > 30
    for promise in promises:
        named = NAMED.findall(promise)
        assert named, promise
        for file, name in named:
            path = ROOT / "tests" / file
            assert path.is_file() and name in functions_of(path), f"{file}::{name}"


def test_known_gaps_are_the_tests_that_are_expected_to_fail() -> None:
    promised, _, gaps = GUARANTEES.partition("## Known gaps")
    assert gaps
    expected = {
        (f"faults/{path.name}", name)
        for path in Path(__file__).parent.glob("test_*.py")
        for name, function in functions_of(path).items()
        if any("xfail" in ast.unparse(decorator) for decorator in function.decorator_list)
    }
    assert set(NAMED.findall(gaps)) == expected
    assert not expected & set(NAMED.findall(promised))
