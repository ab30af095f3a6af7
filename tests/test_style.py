"""Measures of the code's surface, each with its bound: length, density, docstrings."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.task import ROOT

Function = ast.FunctionDef | ast.AsyncFunctionDef
FILES = sorted((ROOT / "pipeline").rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}
LONGEST_FUNCTION, LONGEST_FILE = 60, 350
CONTRACT = {"parts", "sections", "reads", "files", "identities", "finish", "summary"}
RIDDLES = {"What", "How", "Whether", "Where", "Who", "One", "As"}  # first words of docstrings


def functions() -> Iterator[tuple[Path, Function]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield path, node


def name(path: Path, node: Function) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"


def test_functions_and_files_are_short() -> None:
    """A room that nobody holds in the head."""
    lengths = [(node.end_lineno or 0) - node.lineno + 1 for _, node in functions()]
    assert sum(length > LONGEST_FUNCTION for length in lengths) <= 0.005 * len(lengths)
    long_files = [path.name for path in FILES if len(path.read_text().splitlines()) > LONGEST_FILE]
    assert len(long_files) <= 3, long_files


def test_lines_are_not_dense() -> None:
    """Short functions bought with width: at most six syntax nodes a line that is not blank."""
    nodes = sum(
        not isinstance(node, ast.expr_context) for tree in TREES.values() for node in ast.walk(tree)
    )
    lines = sum(bool(line.strip()) for path in FILES for line in path.read_text().splitlines())
    assert nodes / lines <= 6.0


def test_no_ternary_holds_a_ternary() -> None:
    """Three cases in one line, read twice by everybody."""
    nested = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.IfExp)
        for part in (node.body, node.orelse, node.test)
        if isinstance(part, ast.IfExp)
    ]
    assert nested == []


def test_public_functions_have_docstrings() -> None:
    """A function that others call, and of which only its body says what it is for."""
    silent = []
    for path, tree in TREES.items():
        contract = CONTRACT if path.parent.name == "stages" else set()  # execution/contract.py
        for node in tree.body:
            if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
                continue
            if node.name not in contract and ast.get_docstring(node) is None:
                silent.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert silent == []


def test_docstrings_do_not_begin_with_a_riddle() -> None:
    """ "What an arm learns from": a reader has to guess which verb is meant."""
    riddles = []
    for path, node in functions():
        first = (ast.get_docstring(node) or "x").split()[0]
        if first in RIDDLES:
            riddles.append(f"{name(path, node)}: {first}")
    assert riddles == []
