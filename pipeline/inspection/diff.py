"""Compare two runs: settings, data, versions, counts and results."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.execution.fingerprint import differing
from pipeline.inspection.status import not_a_run
from pipeline.storage.files import read_json, read_object


def compare_runs(first: Path, second: Path) -> Iterator[str]:
    """Yield the differences between two runs, stage by stage.

    Raises PipelineError if one of the folders is not a run folder.
    """
    stages = list(dict.fromkeys([*_stages(first), *_stages(second)]))
    for stage in stages:
        if stage.parts[0] not in ("replaced", "ablate"):
            yield from _changes(str(stage), _facts(first / stage), _facts(second / stage))
    results = _results(first), _results(second)
    if any(results):
        yield from _changes("results", *results)


def _stages(run: Path) -> list[Path]:
    """Return the parts of a run that were started, as paths within it."""
    stages = [path.parent.relative_to(run) for path in sorted(run.glob("*/**/begun.json"))]
    if not stages:
        raise not_a_run(run)
    return stages


def _facts(folder: Path) -> dict[str, str]:
    """Return the fingerprint, versions and counts of a part; empty if it was not started."""
    if not (folder / "begun.json").exists():
        return {}
    begun, manifest = (
        read_object(folder / "begun.json", "fingerprint", "versions"),
        folder / "manifest.json",
    )
    counts = read_object(manifest, "counts")["counts"] if manifest.exists() else {"finished": False}
    return {**begun["fingerprint"], **_flat(begun["versions"], "version of "), **_flat(counts)}


def _results(run: Path) -> dict[str, str]:
    path = run / "evaluate" / "results.json"
    return _flat(read_json(path)) if path.exists() else {}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the values of a nested dict as JSON, by dotted key."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.dumps(value, ensure_ascii=False)
    return flat


def _changes(stage: str, first: Mapping[str, str], second: Mapping[str, str]) -> Iterator[str]:
    if not first or not second:
        yield f"{stage}: only in the {'first' if first else 'second'} run"
    elif lines := differing(first, second):
        yield f"{stage}:"
        yield from lines
