"""Where the parts of a run keep their files."""

from pathlib import Path

from pipeline.config import Config

INIT = "init"
CHECKPOINTS = "checkpoints"  # of a part of train
TEACHER, BASE = "teacher", "base"  # compared beside the arms; base is the student before training
_SAMPLES = {"filter": "filter/kept", "score": "score"}  # by train.rows
_FRAMES = {"filter": "generate", "score": "score"}


def trained(model: str) -> str:
    """Return the part of a run that makes the weights of an arm or of the base student."""
    return f"train/{INIT}" if model == BASE else f"train/{model}"


def trained_model(run_dir: Path, model: str) -> Path:
    """Return the folder with the weights of an arm or of the base student."""
    return run_dir / trained(model)


def begun(run_dir: Path, part: str) -> Path:
    """Return the begun.json of a part, such as train/kd: its settings and inputs at the start."""
    return run_dir / part / "begun.json"


def samples(config: Config) -> Path:
    """Return the folder of the samples that arms learn from."""
    return Path(config.run_dir) / _SAMPLES[config.train.rows]


def frames(config: Config) -> Path:
    """Return the folder with the frames of those samples."""
    return Path(config.run_dir) / _FRAMES[config.train.rows]


def learnable(config: Config, drawn: bool) -> Path:
    """Return the folder of all samples that some arm may learn from.

    `drawn`: if true, some arm draws from all samples, including rejected ones.
    """
    return frames(config) if drawn else samples(config)
