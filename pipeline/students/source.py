"""Which model the student starts from."""

from pathlib import Path

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.models import resolve
from pipeline.storage.files import read_json


def source(config: Config) -> tuple[str, str | None]:
    """(name, revision) of the model that the student starts from."""
    if config.student.model == "teacher":
        if config.teacher.backend != "vllm":
            raise PipelineError(
                f"student.model: teacher needs the teacher's weights, and backend {config.teacher.backend} has none here; name a model"
            )
        return config.teacher.model, config.teacher.revision
    return config.student.model, config.student.revision


def identities(config: Config) -> dict[str, str]:
    """What the student starts from, for fingerprints: the weights may be used where they are, and changed there."""
    name, revision = source(config)
    return {"student": name if name == "random" else resolve.identity(name, revision)}


def reads_seeds(config: Config) -> bool:
    """Whether the student's first weights depend on the seeds as its prompt shows them."""
    return config.student.trim_vocabulary or config.student.choose == "importance"


def saved_model(folder: Path) -> tuple[str, str | None]:
    """(folder or hub id, revision) of the model of a finished part of train; an untouched one may lie elsewhere."""
    found = read_json(folder / "student.json")
    return str(found["model"] or folder / "model"), found["revision"]
