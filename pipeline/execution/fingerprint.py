"""Fingerprint of a part: every setting, file and model that can change its result."""

import json
from collections.abc import Mapping
from pathlib import Path

from pipeline.config import Config, added, retired
from pipeline.config.retired import RETIRED
from pipeline.errors import PipelineError
from pipeline.execution.contract import Stage
from pipeline.storage.files import content, read_object, sha256


def input_digest(begun: Path, path: Path | str | None) -> str | None:
    """Return the SHA-256 that an input file had when a part was started; begun.json stores it.

    Return None if the part was not started, or does not depend on the file.
    """
    if not begun.exists():
        return None
    fields: dict[str, str] = read_object(begun, "fingerprint")["fingerprint"]
    return fields.get(_file_field(path))


def fingerprint(stage: Stage, config: Config, part: str) -> dict[str, str]:
    """Return everything that decides the result of a part, by name.

    Raises PipelineError if an input file is missing or an earlier stage is not finished.
    """
    fields = settings(config, *stage.sections(config, part))
    for path in stage.files(config, part):
        if not path.is_file():
            raise PipelineError(f"{path}: no such file; the config names it")
        fields[_file_field(path)] = sha256(path)
    for name, identity in stage.identities(config, part).items():
        fields[f"model {name}"] = identity
    reader = f"{stage.NAME} {part}".strip()
    for upstream in stage.reads(config, part):
        fields[f"output of {upstream}"] = outputs(Path(config.run_dir), upstream, reader)
    return fields


def settings(config: Config, *sections: str) -> dict[str, str]:
    """Return the settings of some config sections as a fingerprint holds them, as JSON by key."""
    return {
        key: json.dumps(value, ensure_ascii=False)
        for key, value in config.settings(*sections).items()
    }


def _file_field(path: Path | str | None) -> str:
    return f"file {Path(path) if path else path}"


def outputs(run_dir: Path, upstream: str, reader: str) -> str:
    """Return the digest of a finished part's outputs, after checking that each has its size.

    `reader` names the part that reads them, for the PipelineError if `upstream` is not finished.
    """
    path = run_dir / upstream / "manifest.json"
    if not path.exists():
        command = upstream.split("/")[0]
        raise PipelineError(
            f"{run_dir}: {reader} needs {upstream}, which is not finished; "
            f"run pipeline {command} first"
        )
    manifest = read_object(path, "files")
    for name, entry in manifest["files"].items():
        file = run_dir / upstream / name
        if not file.is_file() or file.stat().st_size != entry["nbytes"]:
            raise PipelineError(
                f"{file}: is not as {upstream} left it; put it back, "
                "or regenerate the stage with --redo"
            )
    return content(manifest)


def differing(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return a line for each key whose value differs.

    If only one side has a retired key, the other side counts as having its former default. If only
    one side has an added key, the other side counts as having its neutral value.
    """
    lines = []
    for key in {**old, **new}:
        was, now = old.get(key), new.get(key)
        if was == now or (None in (was, now) and added.is_neutral(key, was or now or "")):
            continue
        if key not in RETIRED or (was is not None and now is not None):
            lines.append(f"  {key}: {_shortened(was)} -> {_shortened(now)}")
        elif problem := retired.problem(key, json.loads(was or now or "null")):
            lines.append(f"  {key}: {_shortened(was)} -> {_shortened(now)}: {problem}")
    return lines


def _shortened(value: str | None) -> str:
    if value is None:
        return "(absent)"
    return value if len(value) <= 60 else value[:12] + "…"
