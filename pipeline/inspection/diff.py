"""Differences between two runs: settings, data, versions, figures."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.execution.fingerprint import differing
from pipeline.storage.files import read_json


def compare_runs(one: Path, other: Path) -> Iterator[str]:
    """Stage by stage what two runs differ in: settings and inputs, versions, what came out. Raises PipelineError if one is no run."""
    for run in (one, other):
        if not any(run.glob("*/**/begun.json")):
            raise PipelineError(
                f"{run}: no stage was begun here; give a run folder, such as runs/quickstart"
            )
    stages = {
        path.parent.relative_to(run): None
        for run in (one, other)
        for path in sorted(run.glob("*/**/begun.json"))
    }
    for stage in stages:
        if stage.parts[0] not in ("replaced", "ablate"):
            yield from _changed(str(stage), _facts(one / stage), _facts(other / stage))
    if _results(one) or _results(other):
        yield from _changed("results", _results(one), _results(other))


def _facts(folder: Path) -> dict[str, str]:
    """What decided a part, and what came of it, flat."""
    if not (folder / "begun.json").exists():
        return {}
    begun, manifest = read_json(folder / "begun.json"), folder / "manifest.json"
    counts = read_json(manifest)["counts"] if manifest.exists() else {"finished": False}
    return {**begun["fingerprint"], **_flat(begun["versions"], "version of "), **_flat(counts, "")}


def _results(run: Path) -> dict[str, str]:
    path = run / "evaluate" / "results.json"
    return _flat(read_json(path), "") if path.exists() else {}


def _flat(tree: Mapping[str, Any], prefix: str) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in tree.items():
        flat |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else {f"{prefix}{key}": json.dumps(value, ensure_ascii=False)}
        )
    return flat


def _changed(stage: str, one: Mapping[str, str], other: Mapping[str, str]) -> Iterator[str]:
    if not one or not other:
        yield f"{stage}: only in the {'first' if one else 'second'} run"
    elif lines := differing(one, other):
        yield f"{stage}:"
        yield from lines
