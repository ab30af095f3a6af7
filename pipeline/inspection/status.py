"""Describe how far each part of a run folder is."""

import json
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.storage.files import read_object
from pipeline.storage.shards import read_lines, sealed_shards


def describe(run_dir: Path) -> Iterator[str]:
    """Yield one line for each part, in the order in which the parts were started.

    Raises PipelineError if no stage was started in this folder.
    """
    parts = [
        path.parent
        for path in run_dir.glob("*/**/begun.json")
        if path.relative_to(run_dir).parts[0] != "replaced"
    ]
    if not parts:
        raise not_a_run(run_dir)
    parts.sort(key=lambda folder: (folder / "begun.json").stat().st_mtime_ns)
    return (f"{folder.relative_to(run_dir)!s:<28} {state(folder)}" for folder in parts)


def not_a_run(folder: Path) -> PipelineError:
    """Return the error for a folder in which no stage was started."""
    return PipelineError(
        f"{folder}: no stage was started here; give a run folder, such as runs/quickstart"
    )


def written(folder: Path) -> tuple[int, int]:
    """Return the numbers of stored records and of failed requests; the part may be unfinished."""
    journals = sum(path.read_bytes().count(b"\n") for path in folder.glob("*.journal.jsonl"))
    records = journals + sum(1 for path in sealed_shards(folder) for _ in read_lines(path))
    return records, sum(path.read_bytes().count(b"\n") for path in folder.glob("errors/*.jsonl"))


def state(folder: Path) -> str:
    """Return in words how much of a part is done."""
    manifest = folder / "manifest.json"
    if manifest.exists():
        notes = read_object(manifest, "finished", "seconds", "counts")
        counts = json.dumps(notes["counts"])
        return f"done {notes['finished']} in {notes['seconds']:,.0f} s  {counts}"
    records, failed = written(folder)
    if records or failed:
        progress = f"{records:,} records, {failed:,} failed"
    else:
        progress = _last_checkpoint(folder)
    return f"not finished: {progress}; the same command continues from there"


def _last_checkpoint(folder: Path) -> str:
    steps = [int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoints/checkpoint-*")]
    return f"checkpoint at step {max(steps):,}" if steps else "nothing yet"
