"""What all stages share: upstream manifests, the fingerprint, refusal, the run, the manifest.

A stage is a module with

    NAME        the folder of the run that it fills, and its command
    NOTES       files and folders of a part that are notes about it, not outputs that later stages read
    DISPOSABLE  files and folders that a new start simply writes again: alone, they do not tie the folder to its settings
    SHARED      whether many processes may work on a part at once
    parts       (config) -> names of what is made separately below that folder; [""] for a stage that is one piece
    sections    (config, part) -> the parts of the config that can change its result, such as "teacher" or "task.seeds"
    reads       (config, part) -> folders of the run that it reads, each with a manifest
    files       (config, part) -> outside files whose content counts
    identities  (config, part) -> {name: identity} of the models that it uses
    run         (job) -> counts, recomputed from disk
    summary     (config) -> what to print when all parts are done; reads only
    finish      (config) -> None, if it has one: writes what sums up all parts, once the last one is done; writes nothing twice
    reopen      (job) -> None, if it has one: has a finished part run again for what is no output of it, such as how fast it was

`execute` is the only caller. begun.json is written first, manifest.json last: a folder with a manifest is finished. A part's folder has
two locks: `lock` is held by who works there, alone or together; door.lock for the moments of coming and of finishing.
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
from pipeline.storage.files import read_json, write_json
from pipeline.storage.locks import Lock, locked


def execute(
    stage: Stage,
    config: Config,
    only: Sequence[str] | None = None,
    prepare: Callable[[Job], None] | None = None,
) -> bool:
    """Run every part that is not done (or those named in `only`). Returns whether there was anything to do.

    `prepare` is called first for each part, with no other process at work there: `archive`, or a stage's own.
    """
    wanted = stage.parts(config)
    unknown = [part for part in only or () if part not in wanted]
    if unknown:
        raise PipelineError(
            f"{stage.NAME}: there is no '{unknown[0]}'; there are {', '.join(wanted)}"
        )
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
                    raise PipelineError(
                        f"{job.folder}: process {lock.holder} is at work here; wait for it, or end it"
                    )
                if prepare:
                    if prepare is not archive:
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


def finish(stage: Stage, config: Config) -> None:
    """Have a stage whose parts are all done write what sums them up, if it has anything to write.

    A run that was killed just before this, or whose config now asks for another sum, is put right
    by the next call. Nothing is written where nothing has changed.
    """
    hook: Callable[[Config], None] | None = getattr(stage, "finish", None)
    if hook:
        hook(config)


def done(stage: Stage, config: Config, only: Sequence[str] | None = None) -> bool:
    """Whether all parts (or those named in `only`) are finished, and from just these settings and inputs."""
    for part in only or stage.parts(config):
        job = _job(stage, config, part)
        if not job.manifest.exists():
            return False
        _refuse_other(job, fingerprint(stage, config, part))
    return True


def _job(stage: Stage, config: Config, part: str) -> Job:
    return Job(config, stage.NAME, part, Path(config.run_dir) / stage.NAME / part)


def _begin(stage: Stage, job: Job, fields: dict[str, str], alone: bool) -> bool:
    """Whether the part has to be run. Raises PipelineError if it was begun from other settings or inputs."""
    if alone and is_barren(job.folder, stage.DISPOSABLE) and _changed(job, fields):
        archive(job)  # nothing was made under the old settings
    _refuse_other(job, fields)
    if job.manifest.exists():
        return False
    if not job.begun.exists():
        write_json(
            job.begun,
            {
                "stage": stage.NAME,
                "part": job.part,
                "begun": now(),
                "fingerprint": fields,
                "config": job.config.model_dump(mode="json"),
                "versions": versions(),
            },
        )
    return True


def _run(stage: Stage, job: Job) -> None:
    begun = time.time()
    counts = stage.run(job)
    with locked(job.folder / "door.lock"):
        if job.manifest.exists():  # another worker was first
            return
        write_json(
            job.manifest,
            {
                "stage": stage.NAME,
                "part": job.part,
                "finished": now(),
                "seconds": round(time.time() - begun, 1),
                "counts": counts,
                "files": outputs_of(job.folder, stage.NOTES),
            },
        )


def _changed(job: Job, fields: dict[str, str]) -> list[str]:
    """What is not as it was when the folder was begun, a line each."""
    path = job.begun
    if not path.exists():
        return []
    return differing(read_json(path)["fingerprint"], fields)


def _refuse_other(job: Job, fields: dict[str, str]) -> None:
    """Refuse to go on with a folder that was begun from other settings or inputs."""
    changed = _changed(job, fields)
    if changed:
        raise PipelineError(
            f"{job.folder}: was begun from other settings or inputs; put them back, choose another run_dir, "
            "or set this one aside and make it again with --redo\n" + "\n".join(changed)
        )


def archive(job: Job) -> None:
    """Move everything in a part's folder to RUN/replaced, so that nothing is lost."""
    archive_folder(job.run_dir, job.folder)


def archive_folder(run_dir: Path, folder: Path) -> None:
    """Move everything but the locks of a folder to RUN/replaced, under its name and the time."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    target = run_dir / "replaced" / f"{'-'.join(folder.relative_to(run_dir).parts)}-{stamp}"
    # manifest first, begun.json last: what a kill leaves in between is not taken for a result
    order = {"manifest.json": 0, "begun.json": 2}
    content = sorted(
        (path for path in folder.iterdir() if path.suffix != ".lock" and path.name != "lock"),
        key=lambda path: order.get(path.name, 1),
    )
    if content:
        target.mkdir(parents=True)
        for path in content:
            path.rename(target / path.name)
