"""Where the parts of a run keep their files."""

from pathlib import Path

from pipeline.execution.contract import Job

INIT = "init"
TEACHER, BASE = "teacher", "base"  # what is compared beside the arms; base is the untouched student
_ROWS = {"filter": "filter/kept", "score": "score"}  # where the samples are, and where their frames
_FRAMES = {"filter": "generate", "score": "score"}


def trained(model: str) -> str:
    """Where in a run the weights of the untouched student or of an arm are."""
    return "train/init" if model == BASE else f"train/{model}"


def samples(job: Job) -> Path:
    """The folder of the samples that arms learn from."""
    return job.run_dir / _ROWS[job.config.train.rows]


def frames(job: Job) -> Path:
    """The folder with the frames of those samples."""
    return job.run_dir / _FRAMES[job.config.train.rows]


def learnable(job: Job, drawn: bool) -> Path:
    """The folder of all samples that some arm may learn from; `drawn`: one draws from those too that were not kept."""
    return frames(job) if drawn else samples(job)
