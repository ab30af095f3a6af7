"""Run the parts of a stage: compare the fingerprint, resume, write the manifest.

`execute` is the only caller of a stage. It writes begun.json first and manifest.json last: a folder
with a manifest is finished. A part's folder has two locks. The processes that work there hold
`lock`, one alone or several together. A process holds door.lock only while it enters or finishes.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.execution.contract import Job, Stage
from pipeline.execution.fingerprint import differing, fingerprint
from pipeline.execution.manifest import is_barren, now, outputs_of, versions
from pipeline.execution.redaction import without_logins
from pipeline.storage.files import read_object, write_json
from pipeline.storage.locks import Lock, locked


def execute(
    stage: Stage,
    config: Config,
    only: Sequence[str] | None = None,
    prepare: Callable[[Job], None] | None = None,
) -> bool:
    """Run every part that is not done, or those named in `only`. Return True if there was any.

    If given, `prepare` is called first for each part, while no other process works there. It is
    `archive` or a function of the stage.
    """
    parts = stage.parts(config)
    unknown = [part for part in only or () if part not in parts]
    if unknown:
        raise PipelineError(
            f"{stage.NAME}: there is no '{unknown[0]}'; there are {', '.join(parts)}"
        )
    worked = False
    for part in only or parts:
        worked |= _execute_part(stage, config, part, prepare)
    return worked


def finish(stage: Stage, config: Config) -> None:
    """Call the stage's `finish`, if it has one, when all its parts are done.

    Call it for a finished run too: the run may have been killed just before, or its config may now
    ask for other figures. Files that are already right are not written again.
    """
    hook: Callable[[Config], None] | None = getattr(stage, "finish", None)
    if hook:
        hook(config)


def is_done(stage: Stage, config: Config, only: Sequence[str] | None = None) -> bool:
    """Return True if all parts, or those named in `only`, are finished.

    Raises PipelineError if one was started from other settings or inputs.
    """
    for part in only or stage.parts(config):
        job = _job(stage, config, part)
        if not job.manifest.exists():
            return False
        _refuse_changed(job, fingerprint(stage, config, part))
    return True


def _job(stage: Stage, config: Config, part: str) -> Job:
    return Job(config, stage.NAME, part, Path(config.run_dir) / stage.NAME / part)


def _execute_part(
    stage: Stage, config: Config, part: str, prepare: Callable[[Job], None] | None
) -> bool:
    """Run one part under its lock if it is not done. Return True if it was run."""
    job = _job(stage, config, part)
    fields = fingerprint(stage, config, part)
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:  # such as a run folder in /proc
        raise PipelineError(
            f"run_dir: no folder can be made at {job.folder}; choose a place that can be written"
        ) from None
    lock = Lock(job.folder / "lock")
    try:
        with locked(job.folder / "door.lock"):  # one process at a time enters
            alone = lock.take()
            if not alone and (prepare or not stage.SHARED or not lock.take(shared=True)):
                raise PipelineError(
                    f"{job.folder}: process {lock.holder} is at work here; wait for it, or end it"
                )
            if prepare:
                if prepare is not archive:
                    _refuse_changed(job, fields)
                prepare(job)
            if not _start(stage, job, fields, alone):
                return False
            if stage.SHARED:
                lock.take(shared=True)
        _run(stage, job)
    finally:
        lock.release()
    return True


def _start(stage: Stage, job: Job, fields: dict[str, str], alone: bool) -> bool:
    """Write begun.json unless it exists. Return True if the part has to run.

    Raises PipelineError if the part was started from other settings or inputs.
    """
    if alone and is_barren(job.folder, stage.DISPOSABLE) and _changes(job, fields):
        archive(job)  # nothing was made under the old settings
    _refuse_changed(job, fields)
    if job.manifest.exists():
        return False
    if not job.begun.exists():
        begun = {
            "stage": stage.NAME,
            "part": job.part,
            "begun": now(),
            "fingerprint": fields,
            "config": without_logins(job.config.model_dump(mode="json")),
            "versions": versions(),
        }
        write_json(job.begun, begun)
    return True


def _run(stage: Stage, job: Job) -> None:
    started = time.time()
    counts = stage.run(job)
    with locked(job.folder / "door.lock"):
        if job.manifest.exists():  # another process was first
            return
        manifest = {
            "stage": stage.NAME,
            "part": job.part,
            "finished": now(),
            "seconds": round(time.time() - started, 1),
            "counts": counts,
            "files": outputs_of(job.folder, stage.NOTES),
        }
        write_json(job.manifest, manifest)


def _changes(job: Job, fields: dict[str, str]) -> list[str]:
    """Return a line for each setting or input that changed since the part was started."""
    if not job.begun.exists():
        return []
    return differing(read_object(job.begun, "fingerprint")["fingerprint"], fields)


def _refuse_changed(job: Job, fields: dict[str, str]) -> None:
    """Raise PipelineError if a part was started from other settings or inputs."""
    changes = _changes(job, fields)
    if changes:
        raise PipelineError(
            f"{job.folder}: was started from other settings or inputs; put them back, choose "
            "another run_dir, or archive this folder and regenerate it with --redo\n"
            + "\n".join(changes)
        )


def archive(job: Job) -> None:
    """Move everything in a part's folder to RUN/replaced, so that nothing is lost."""
    archive_folder(job.run_dir, job.folder)


def archive_folder(run_dir: Path, folder: Path) -> None:
    """Move everything but the locks of a folder to RUN/replaced, under its name and the time."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    target = run_dir / "replaced" / f"{'-'.join(folder.relative_to(run_dir).parts)}-{stamp}"
    # move the manifest first and begun.json last: if the process is killed in between, the
    # folder has no manifest and does not count as finished
    order = {"manifest.json": 0, "begun.json": 2}
    content = sorted(
        (path for path in folder.iterdir() if path.suffix != ".lock" and path.name != "lock"),
        key=lambda path: order.get(path.name, 1),
    )
    if content:
        target.mkdir(parents=True)
        for path in content:
            path.rename(target / path.name)
