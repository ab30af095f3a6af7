"""The answers of all models to the held-out examples, side by side, as pages and an index."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.data import seeds
from pipeline.errors import PipelineError
from pipeline.execution.paths import BASE, TEACHER
from pipeline.records import Scored, Seed
from pipeline.report.paged_data import Facet, Index, in_pages, input_text, write_data
from pipeline.report.samples_view import NO_GROUP, PARTLY, RIGHT, UNKNOWN, WRONG, verdict_of
from pipeline.storage.files import read_object
from pipeline.storage.shards import read_records

FIRST = (TEACHER, BASE)
NOT_ASKED = "not asked yet"
SORTS = (
    ("input", "in input order"),
    ("id", "by id"),
    ("rising", "most models wrong first"),
    ("falling", "most models right first"),
)


@dataclass(frozen=True)
class Row:
    """A held-out example with each model's answer; `seed` is None if its file is missing."""

    id: str
    seed: Seed | None
    answers: Mapping[str, Scored | None]  # by model; None if it has not answered yet

    @property
    def given(self) -> dict[str, Scored]:
        """The answers by model, without the models that have not answered yet."""
        return {model: answer for model, answer in self.answers.items() if answer}


def write(run_dir: Path, folder: Path) -> Index | None:
    """Write pages of held-out examples with every model's answer into `folder`; return their index.

    Return None if no model has answered yet.
    """
    answers = {}
    for model in _models(run_dir):
        records = read_records(run_dir / "evaluate" / model, Scored)
        if by_seed := {answer.seed_id: answer for answer in records}:
            answers[model] = by_seed
    if not answers:
        return None
    verdicts = (RIGHT, PARTLY, WRONG, UNKNOWN, NOT_ASKED)
    facets = [Facet(f"model-{model}", model, list(verdicts)) for model in answers]
    index = Index([*facets, Facet("slice", "Group", [NO_GROUP])], sorts=SORTS)
    for name, rows in in_pages(_rows(_seeds(run_dir), answers)):
        write_data(folder, name, [_page_row(row) for row in rows])
        for row in rows:
            _add(index, row)
    return index


def _rows(
    held_out: Mapping[str, Seed], answers: Mapping[str, Mapping[str, Scored]]
) -> Iterator[Row]:
    ids = dict.fromkeys(held_out)
    for by_seed in answers.values():
        ids |= dict.fromkeys(by_seed)
    for seed_id in ids:
        given = {model: by_seed.get(seed_id) for model, by_seed in answers.items()}
        yield Row(seed_id, held_out.get(seed_id), given)


def _models(run_dir: Path) -> list[str]:
    """Return the evaluated models: teacher, base student, then arms by name."""
    names = {path.parent.name for path in (run_dir / "evaluate").glob("*/begun.json")}
    return [*(name for name in FIRST if name in names), *sorted(names - set(FIRST))]


def _seeds(run_dir: Path) -> Mapping[str, Seed]:
    """Return the held-out examples by id; empty if their file is missing."""
    begun = min((run_dir / "evaluate").glob("*/begun.json"))
    config = Config.model_validate(read_object(begun, "config")["config"])
    try:
        return {seed.id: seed for seed in seeds.load(config.task.eval_seeds)}
    except PipelineError:
        return {}


def _add(index: Index, row: Row) -> None:
    *models, groups = index.facets
    for facet, answer in zip(models, row.answers.values(), strict=True):
        facet.add(verdict_of(answer.score) if answer else NOT_ASKED)
    given = list(row.given.values())
    groups.add(next((answer.group for answer in given if answer.group), NO_GROUP))
    if row.seed:
        line = " · ".join(input_text(value) for value in row.seed.inputs.values())
    else:
        line = given[0].text
    target = given[0].target if given else None
    index.add(row.id, target or "", line, sum(answer.score.value for answer in given))


def _page_row(row: Row) -> dict[str, Any]:
    seed, given = row.seed, row.given
    target = next((answer.target for answer in given.values()), seed.target if seed else None)
    models = [
        [
            model,
            verdict_of(answer.score),
            answer.score.value,
            answer.text,
            answer.score.answer,
            answer.score.explanation,
        ]
        for model, answer in given.items()
    ]
    inputs = seed.inputs.items() if seed else ()
    return {
        "inputs": [[key, input_text(value)] for key, value in inputs],
        "target": target,
        "models": models,
    }
