"""What every model says to the held-out seeds, side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.data import seeds
from pipeline.errors import PipelineError
from pipeline.execution.paths import BASE, TEACHER
from pipeline.records import Scored, Seed
from pipeline.report.paged_data import Facet, Index, in_pages, lined, write_data
from pipeline.report.samples_view import NO_GROUP, PARTLY, RIGHT, UNKNOWN, WRONG, verdict_of
from pipeline.storage.files import read_json
from pipeline.storage.shards import read_records

FIRST = (TEACHER, BASE)
NOT_ASKED = "not asked yet"
SORTS = (
    ("input", "in input order"),
    ("id", "by id"),
    ("rising", "most models wrong first"),
    ("falling", "most models right first"),
)


def write(run_dir: Path, folder: Path) -> Index | None:
    """Write pages of held-out seeds with every model's answer into `folder`; returns their index. None if no model has answered yet."""
    answers = {
        model: {one.seed_id: one for one in read_records(run_dir / "evaluate" / model, Scored)}
        for model in _models(run_dir)
    }
    answers = {model: by_seed for model, by_seed in answers.items() if by_seed}
    if not answers:
        return None
    held_out = _seeds(run_dir)
    ids = list(
        dict.fromkeys([*held_out, *(seed for by_seed in answers.values() for seed in by_seed)])
    )
    facets = [
        Facet(f"model-{model}", model, [RIGHT, PARTLY, WRONG, UNKNOWN, NOT_ASKED])
        for model in answers
    ]
    index = Index([*facets, Facet("slice", "Slice", [NO_GROUP])], sorts=SORTS)
    for name, rows in in_pages(
        {model: by_seed.get(seed) for model, by_seed in answers.items()} | {"": held_out.get(seed)}
        for seed in ids
    ):
        write_data(folder, name, [_page_row(row) for row in rows])
        for number, row in enumerate(rows, start=len(index.ids)):
            _add(index, ids[number], row)
    return index


def _models(run_dir: Path) -> list[str]:
    """Who was asked: the teacher first, the untouched student next, then arms by name."""
    names = {path.parent.name for path in (run_dir / "evaluate").glob("*/begun.json")}
    return [*(name for name in FIRST if name in names), *sorted(names - set(FIRST))]


def _seeds(run_dir: Path) -> Mapping[str, Seed]:
    """The held-out seeds by id; none where their source is not at hand any more."""
    begun = min((run_dir / "evaluate").glob("*/begun.json"))
    try:
        return {
            seed.id: seed
            for seed in seeds.load(
                Config.model_validate(read_json(begun)["config"]).task.eval_seeds
            )
        }
    except PipelineError:
        return {}


def _add(index: Index, identifier: str, row: Mapping[str, Any]) -> None:
    seed = row[""]
    answers = [one for model, one in row.items() if model]
    *models, slices = index.facets
    for facet, one in zip(models, answers, strict=True):
        facet.add(verdict_of(one.score) if one else NOT_ASKED)
    known = [one for one in answers if one]
    slices.add(next((one.group for one in known if one.group), None) or NO_GROUP)
    line = " · ".join(lined(value) for value in seed.inputs.values()) if seed else known[0].text
    index.add(
        identifier,
        known[0].target or "" if known else "",
        line,
        sum(one.score.value for one in known),
    )


def _page_row(row: Mapping[str, Any]) -> dict[str, Any]:
    seed = row[""]
    answers = {model: one for model, one in row.items() if model and one}
    return {
        "inputs": [[key, lined(value)] for key, value in seed.inputs.items()] if seed else [],
        "target": next((one.target for one in answers.values()), seed.target if seed else None),
        "models": [
            [
                model,
                verdict_of(one.score),
                one.score.value,
                one.text,
                one.score.answer,
                one.score.explanation,
            ]
            for model, one in answers.items()
        ],
    }
