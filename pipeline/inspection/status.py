"""What a run folder holds, read from its files alone."""

import json
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.storage.files import read_json
from pipeline.storage.shards import read_lines, sealed_shards


def describe(run_dir: Path) -> Iterator[str]:
    """One line a stage or arm that was begun."""
    begun = sorted(
        (
            path.parent
            for path in run_dir.glob("*/**/begun.json")
            if path.relative_to(run_dir).parts[0] != "replaced"
        ),
        key=lambda folder: (folder / "begun.json").stat().st_mtime_ns,
    )
    if not begun:
        raise PipelineError(
            f"{run_dir}: no stage was begun here; give a run folder, such as runs/quickstart"
        )
    return (f"{folder.relative_to(run_dir)!s:<28} {state(folder)}" for folder in begun)


def written(folder: Path) -> tuple[int, int]:
    """(records, failed requests) of a part, finished or not."""
    journals = sum(path.read_bytes().count(b"\n") for path in folder.glob("*.journal.jsonl"))
    records = journals + sum(1 for path in sealed_shards(folder) for _ in read_lines(path))
    return records, sum(path.read_bytes().count(b"\n") for path in folder.glob("errors/*.jsonl"))


def state(folder: Path) -> str:
    """How far a part is, in words."""
    manifest = folder / "manifest.json"
    if manifest.exists():
        found = read_json(manifest)
        return (
            f"done {found['finished']} in {found['seconds']:,.0f} s  {json.dumps(found['counts'])}"
        )
    records, failed = written(folder)
    checkpoints = sorted(
        int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoints/checkpoint-*")
    )
    if records or failed:
        so_far = f"{records:,} records, {failed:,} failed"
    else:
        so_far = f"checkpoint at step {checkpoints[-1]:,}" if checkpoints else "nothing yet"
    return f"not finished: {so_far}; the same command goes on from there"
