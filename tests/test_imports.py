"""Imports point downward only, and --help imports nothing heavy."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

from tests.support.task import ROOT

# fmt: off
ORDER = [
    "errors", "records", "config", "storage", "execution", "models", "verifiers", "data",
    "inference", "filters", "students", "losses", "training", "evaluation", "stages", "ablation",
    "inspection", "advice", "report", "cli", "__main__",
]
# fmt: on
# Within filters/: the families stand beside one another, what chooses among their rows above them.
FILTER_LAYERS = [
    {"hashing", "verdict", "sample_text"},
    {"measures"},
    {"measure_cache"},
    {"named_filter"},
    {"heuristics", "decontamination", "correctness", "confidence", "privacy"},
    {"best_by"},
    {"dedup"},
    {"selection"},
    {"build"},
]
FILTER_RANK = {name: rank for rank, layer in enumerate(FILTER_LAYERS) for name in layer}
RANK = {name: rank for rank, name in enumerate(["__init__", *ORDER])}
HEAVY = {"torch", "peft", "vllm", "trl", "transformers", "datasets", "openai", "pyarrow"}


def modules() -> list[Path]:
    face = ROOT / "pipeline" / "__init__.py"  # hands out its public names lazily
    return sorted(path for path in (ROOT / "pipeline").rglob("*.py") if path != face)


def room(path: Path) -> str:
    """Return the layer of a file: the first part of its path below pipeline/."""
    return path.relative_to(ROOT / "pipeline").parts[0].removesuffix(".py")


def imported(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pipeline"):
            below = node.module.split(".")[1:]
            found += [below[0]] if below else [alias.name for alias in node.names]
    return [name for name in found if name in RANK]


def test_arrows_point_downward() -> None:
    """An upward import ties the foundations to one use of them."""
    upward = [
        f"{room(path)} -> {name}"
        for path in modules()
        for name in imported(path)
        if RANK[name] > RANK[room(path)]
    ]
    assert upward == []


def test_filters_import_downward() -> None:
    """A family that knows what chooses among its rows could not be read alone."""
    folder = ROOT / "pipeline" / "filters"
    upward = []
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "pipeline.filters"
            ):
                below = (node.module or "").split(".")[2:]
                for other in [below[0]] if below else [alias.name for alias in node.names]:
                    equal = FILTER_RANK[other] == FILTER_RANK[name] and other != name
                    if equal or FILTER_RANK[other] > FILTER_RANK[name]:
                        upward.append(f"{name} -> {other}")
    assert upward == []


def test_no_modules_import_one_another() -> None:
    """A circle, even a lazy one or one of types alone, can only be read as a whole."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in modules()}
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                targets = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
                graph[name] |= targets & set(names) - {name}
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError with the circle


def test_every_module_has_a_layer() -> None:
    """A new file that the test does not know would not be checked."""
    assert {room(path) for path in modules()} <= set(RANK)


def test_stages_do_not_import_one_another() -> None:
    """Stages meet only in files."""
    crossing = [
        path.name
        for path in (ROOT / "pipeline" / "stages").glob("*.py")
        if "stages" in imported(path)
    ]
    assert crossing == []


def test_help_loads_nothing_heavy() -> None:
    """`pipeline --help` answers at once only if the big libraries wait."""
    stages = "evaluate, fidelity, filter, generate, lm_eval, memorisation, score, train"
    code = (
        "import sys; from pipeline.cli import main; "
        f"from pipeline.stages import {stages}; print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(loaded) & HEAVY == set()


def importers(package: str) -> set[str]:
    """Return the files below pipeline/ that import a package, also inside a function."""
    users = set()
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            if package in {name.split(".")[0] for name in names}:
                users.add(str(path.relative_to(ROOT / "pipeline")))
    return users


def test_only_one_file_imports_vllm() -> None:
    """vLLM's interface moves; one file follows it."""
    assert importers("vllm") == {"models/vllm_engine.py"}


def test_only_training_imports_trl() -> None:
    """TRL's interface moves; three files follow it, and only the first its private names."""
    files = {"trl_hooks.py", "trl_arguments.py", "collation.py"}
    assert importers("trl") == {f"training/{name}" for name in files}


def test_only_the_command_line_imports_click() -> None:
    """A library that prints through click could not be used without the command line."""
    assert {Path(user).parts[0] for user in importers("click")} == {"cli"}


def test_only_the_command_line_prints() -> None:
    """A message that bypasses the loggers cannot be silenced, redirected or kept apart."""
    printing = set()
    for path in modules():
        name = str(path.relative_to(ROOT / "pipeline"))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Name) and node.id == "print":
                printing.add(name)
    speakers = {"execution/progress.py", "execution/console.py"}
    assert {name for name in printing - speakers if not name.startswith("cli/")} == set()
