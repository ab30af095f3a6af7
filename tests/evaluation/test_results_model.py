"""results.json: files of other versions can be read, and docs describe every key."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from pipeline.ablation.results_model import AblationResults
from pipeline.errors import PipelineError
from pipeline.evaluation.results_model import Results
from tests.support import finished_run

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "results.md"


def schemas(annotation: Any, known: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    """Yield the models in a type, those of their fields too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation in known:
            return
        known.add(annotation)
        yield annotation
        for field in annotation.model_fields.values():
            yield from schemas(field.annotation, known)
    for argument in get_args(annotation):
        yield from schemas(argument, known)


@pytest.mark.parametrize("schema", [Results, AblationResults])
def test_every_key_is_described(schema: type[BaseModel]) -> None:
    """A key that was added to the file and not to the page."""
    tables = PAGE.read_text().partition("\n## results.json\n")[2]
    described = set(re.findall(r"`(\w+)`", tables))
    keys = {key for part in schemas(schema, set()) for key in part.model_fields}
    assert keys - described == set()


def test_file_is_the_same_after_reading(tmp_path: Path) -> None:
    """Reading must not change a number, lose a key or add one."""
    path = tmp_path / "results.json"
    finished_run.write(path, finished_run.results())
    Results.read(path).write(path)
    assert json.loads(path.read_text()) == finished_run.results()
    finished_run.write(path, finished_run.ablation())
    AblationResults.read(path).write(path)
    assert json.loads(path.read_text()) == finished_run.ablation()


def test_file_of_a_newer_version_is_read(tmp_path: Path) -> None:
    """A figure that this version does not know must not cost the report."""
    newer = finished_run.results() | {"carbon": 1.0}
    newer["models"]["kd"]["carbon"] = {"kg": 1.0}
    finished_run.write(tmp_path / "results.json", newer)
    assert Results.read(tmp_path / "results.json").models["kd"].method == "kd"


def test_malformed_file_is_named(tmp_path: Path) -> None:
    """A file edited by hand gave a traceback."""
    broken = finished_run.results()
    broken["models"]["kd"]["score"]["mean"] = "high"
    finished_run.write(tmp_path / "results.json", broken)
    with pytest.raises(PipelineError, match=r"results.json: models.kd.score.mean: .*number"):
        Results.read(tmp_path / "results.json")
