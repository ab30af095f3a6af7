"""Which model the student starts from, and where the model of a finished part is."""

from pathlib import Path

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.models import resolve
from pipeline.storage.files import read_object


def source(config: Config) -> tuple[str, str | None]:
    """Return (name, revision) of the model that the student starts from."""
    if config.student.model != "teacher":
        return config.student.model, config.student.revision
    if config.teacher.backend != "vllm":
        raise PipelineError(
            "student.model: teacher needs the teacher's weights, and backend "
            f"{config.teacher.backend} has none here; name a model"
        )
    return config.teacher.model, config.teacher.revision


def identities(config: Config) -> dict[str, str]:
    """Return the identity of the start for fingerprints, since its weights may change where they
    are."""
    name, revision = source(config)
    return {"student": name if name == "random" else resolve.identity(name, revision)}


def reads_seeds(config: Config) -> bool:
    """Return whether the student's first weights depend on the seeds as its prompt shows them."""
    student = config.student
    is_healed_on_them = student.heal is not None and student.heal.path is None
    return student.trim_vocabulary or student.choose == "importance" or is_healed_on_them


def saved_model(folder: Path) -> tuple[str, str | None]:
    """Return (folder or hub id, revision) of the model of a finished part of train. A base student
    without changes stays where it is, outside of the run."""
    stored = read_object(folder / "student.json")
    return str(stored["model"] or folder / "model"), stored["revision"]
