"""The teacher's samples, kept and rejected, as pages and an index; reads one shard at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.filters.measure_cache import MeasureCache, Shard, read_order
from pipeline.inspection.lookup import is_judged
from pipeline.inspection.tokens import load_teacher_tokenizer
from pipeline.records import Rejected, Sample, Score
from pipeline.report.paged_data import Facet, Index, in_pages, input_text, write_data
from pipeline.report.token_probabilities import Packed, pack, to_json
from pipeline.storage.files import read_object
from pipeline.storage.shards import read_lines, read_records, sealed_shards
from pipeline.storage.topk import TopKFolder
from pipeline.verifiers import scorers

KEPT, REJECTED, OPEN = "kept", "rejected", "not filtered yet"
RIGHT, PARTLY, WRONG, UNKNOWN = "right", "partly right", "wrong", "unknown"
NO_GROUP = "none"
SORTS = (
    ("input", "in input order"),
    ("id", "by id"),
    ("rising", "least certain first"),
    ("falling", "most certain first"),
)


@dataclass(frozen=True)
class Row:
    """One sample with its verdict, score and token probabilities."""

    sample: Sample
    verdict: str
    rejected: Rejected | None
    score: Score | None
    packed: Packed | None
    logprob: float | None  # of the teacher, mean over the tokens


def write(run_dir: Path, folder: Path, max_samples: int) -> Index | None:
    """Write pages of samples and of their tokens into `folder`; return their index.

    None if there is no sample yet.
    """
    shards = _shards(run_dir)
    if not shards:
        return None
    chosen = _choose(run_dir, shards, max_samples)
    index = _index(int(chosen.sum()), len(chosen))
    tokenizer = None
    for name, rows in in_pages(_rows(run_dir, shards, chosen)):
        for row in rows:
            _add(index, row)
        write_data(folder, name, [_page_row(row) for row in rows])
        packed = [row.packed for row in rows]
        if any(packed):
            tokenizer = tokenizer or load_teacher_tokenizer(run_dir)
            write_data(folder, f"{name}.tokens", to_json(packed, tokenizer))
    return index


def verdict_of(score: Score | None) -> str:
    """Return the word for a score: right, wrong, partly right or unknown."""
    if score is None or score.explanation.startswith(UNKNOWN):
        return UNKNOWN
    return {1.0: RIGHT, 0.0: WRONG}.get(score.value, PARTLY)


def _index(shown: int, samples: int) -> Index:
    facets = [
        Facet("verdict", "Verdict", [KEPT, REJECTED, OPEN]),
        Facet("truth", "Against ground truth", [RIGHT, PARTLY, WRONG, UNKNOWN]),
        Facet("reason", "Rejected for", [""]),
        Facet("slice", "Group", [NO_GROUP]),
    ]
    note = (
        f"{shown:,} of {samples:,} samples are here: rejected ones first, then evenly spaced ones."
    )
    return Index(facets, sorts=SORTS, note=note if shown < samples else "")


def _shards(run_dir: Path) -> list[Shard]:
    """Return the finished shards, even if generate is not finished."""
    folder = run_dir / "generate"
    if (folder / "manifest.json").exists():
        return MeasureCache(run_dir).shards
    return [Shard(path, sum(1 for _ in read_lines(path)), "") for path in sealed_shards(folder)]


def _filtered(run_dir: Path) -> bool:
    """Return True if filter is finished on the samples that generate holds now."""
    stages = ("generate", "filter")
    return all((run_dir / stage / "manifest.json").exists() for stage in stages) and is_judged(
        run_dir
    )


def _choose(run_dir: Path, shards: list[Shard], max_samples: int) -> NDArray[np.bool_]:
    """Return an array (samples,) that is True for the samples to show.

    Rejected samples are chosen first, then others at even distances.
    """
    samples = sum(shard.records for shard in shards)
    if samples <= max_samples:
        return np.ones(samples, bool)
    rejected = np.zeros(samples, bool)
    if _filtered(run_dir):
        rows = [rejection.row for rejection in _rejections(run_dir)]
        rejected[rows] = True
    chosen = np.zeros(samples, bool)
    for candidates in (np.flatnonzero(rejected), np.flatnonzero(~rejected)):
        count = min(max_samples - int(chosen.sum()), len(candidates))
        places = np.linspace(0, len(candidates) - 1, count).astype(np.int64)
        chosen[candidates[places]] = True
    return chosen


def _rejections(run_dir: Path) -> Iterator[Rejected]:
    return read_records(run_dir / "filter" / "rejected", Rejected)


def _rows(run_dir: Path, shards: list[Shard], chosen: NDArray[np.bool_]) -> Iterator[Row]:
    filtered = _filtered(run_dir)
    frames, scores = TopKFolder(run_dir / "generate"), _Scores(run_dir)
    rejections = _rejections(run_dir) if filtered else iter(())
    rejection = next(rejections, None)  # rejections are sorted by row
    row = -1
    for shard in shards:
        scores.open(shard)
        for number, line in enumerate(read_lines(shard.path)):
            row += 1
            rejected = None
            if rejection is not None and rejection.row == row:
                rejected, rejection = rejection, next(rejections, None)
            if chosen[row]:
                sample = Sample.from_line(line, f"{shard.path}:{number + 1}")
                verdict = OPEN
                if filtered:
                    verdict = REJECTED if rejected else KEPT
                packed, logprob = _probabilities(frames, sample)
                score = scores.score(sample, number)
                yield Row(sample, verdict, rejected, score, packed, logprob)


def _probabilities(frames: TopKFolder, sample: Sample) -> tuple[Packed | None, float | None]:
    if sample.frame is None or not sample.token_ids:
        return None, None
    topk = frames.topk_of(sample)
    return pack(sample.token_ids, topk), float(topk.logprobs[:, 0].mean())


class _Scores:
    """Scores of samples against the ground truth.

    If the filter stage is finished, its scores are used. If not, a sample is scored now, unless the
    metric needs a sandbox; then the score is unknown.
    """

    def __init__(self, run_dir: Path):
        begun = read_object(run_dir / "generate" / "begun.json", "config")
        self._task = Config.model_validate(begun["config"]).task
        self._cache = MeasureCache(run_dir) if _filtered(run_dir) else None
        filters = read_order(run_dir / "filter")
        self._measure = next((measures[0] for name, measures in filters if name == "correct"), None)
        self._column: Any = None

    def open(self, shard: Shard) -> None:
        """Read the filter's scores of a shard."""
        self._column = None
        if self._cache and self._measure:
            self._column = self._cache.shard_column(self._measure, shard)

    def score(self, sample: Sample, number: int) -> Score | None:
        """Return the score of sample `number` of the open shard; None if it is unknown."""
        if sample.seed.target is None:
            return None
        if self._column is not None:
            value, explanation = self._column[number]
            return None if value is None else Score(value=value, explanation=explanation)
        scorer = scorers.SCORERS.get(self._task.metric)
        return scorer(sample.answer, sample.seed.target, self._task.labels) if scorer else None


def _reason(rejected: Rejected | None) -> str:
    return f"{rejected.filter}.{rejected.reason}" if rejected else ""


def _add(index: Index, row: Row) -> None:
    sample = row.sample
    group = sample.seed.group or NO_GROUP
    values = (row.verdict, verdict_of(row.score), _reason(row.rejected), group)
    for facet, value in zip(index.facets, values, strict=True):
        facet.add(value)
    head = sample.answer if sample.answer is not None else sample.text
    line = " · ".join(input_text(value) for value in sample.seed.inputs.values())
    index.add(sample.id, head, line, row.logprob)


def _page_row(row: Row) -> dict[str, Any]:
    sample, rejected = row.sample, row.rejected
    return {
        "inputs": [[key, input_text(value)] for key, value in sample.seed.inputs.items()],
        "text": sample.text,
        "rationale": sample.rationale,
        "answer": sample.answer,
        "spans": [sample.rationale_tokens, sample.answer_tokens],
        "target": sample.seed.target,
        "why": row.score.explanation if row.score else None,
        "said": [_reason(rejected), str(rejected.value)] if rejected else None,
        "ended": sample.finish_reason,
        "tokens": sample.usage.completion_tokens,
    }
