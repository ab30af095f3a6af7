"""Fingerprint of a part: every setting, file and model that can change its result."""

import json
from collections.abc import Mapping
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.execution.contract import Stage
from pipeline.storage.files import content, read_json, sha256


def input_digest(begun: Path, path: Path | str | None) -> str | None:
    """Return the SHA-256 that an input file had when a part was started, by the part's begun.json.

    None where the part was not started, or does not depend on the file.
    """
    if not begun.exists():
        return None
    fields: dict[str, str] = read_json(begun)["fingerprint"]
    return fields.get(_file_field(path))


def fingerprint(stage: Stage, config: Config, part: str) -> dict[str, str]:
    """Everything that decides the result, by name. Raises PipelineError if something upstream is not finished."""
    fields = settings(config, *stage.sections(config, part))
    for path in stage.files(config, part):
        if not path.is_file():
            raise PipelineError(f"{path}: no such file; the config names it")
        fields[_file_field(path)] = sha256(path)
    for name, identity in stage.identities(config, part).items():
        fields[f"model {name}"] = identity
    for upstream in stage.reads(config, part):
        fields[f"output of {upstream}"] = outputs(
            Path(config.run_dir), upstream, f"{stage.NAME} {part}".strip()
        )
    return fields


def settings(config: Config, *sections: str) -> dict[str, str]:
    """The values of some parts of the config as they stand in a fingerprint."""
    return {
        key: json.dumps(value, ensure_ascii=False)
        for key, value in config.settings(*sections).items()
    }


def _file_field(path: Path | str | None) -> str:
    return f"file {Path(path) if path else path}"


def outputs(run_dir: Path, upstream: str, reader: str) -> str:
    """Digest of what a finished stage made, after a look that its files are still there with their sizes."""
    path = run_dir / upstream / "manifest.json"
    if not path.exists():
        raise PipelineError(
            f"{run_dir}: {reader} needs {upstream}, which is not finished; run pipeline {upstream.split('/')[0]} first"
        )
    manifest = read_json(path)
    for name, entry in manifest["files"].items():
        file = run_dir / upstream / name
        if not file.is_file() or file.stat().st_size != entry["nbytes"]:
            raise PipelineError(
                f"{file}: is not as {upstream} left it; put it back, or make the stage again with --redo"
            )
    return content(manifest)


def differing(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """A line for each key whose value is not the same in both."""
    return [
        f"  {key}: {_short(old.get(key))} -> {_short(new.get(key))}"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]


def _short(value: str | None) -> str:
    if value is None:
        return "(absent)"
    return value if len(value) <= 60 else value[:12] + "…"
