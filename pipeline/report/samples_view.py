"""What the teacher wrote, kept and rejected, as pages of samples and a list of them; read a shard at a time, to keep memory flat."""

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
from pipeline.report.paged_data import Facet, Index, in_pages, lined, write_data
from pipeline.report.token_probabilities import Packed, pack, to_json
from pipeline.storage.files import read_json
from pipeline.storage.shards import read_lines, read_records, sealed_shards
from pipeline.storage.topk import TopKFolder
from pipeline.verifiers import scorers

KEPT, REJECTED, OPEN = "kept", "rejected", "not judged yet"
RIGHT, PARTLY, WRONG, UNKNOWN = "right", "partly right", "wrong", "unknown"
NO_GROUP = "none"
CERTAIN = (
    ("input", "in input order"),
    ("id", "by id"),
    ("rising", "least certain first"),
    ("falling", "most certain first"),
)


@dataclass(frozen=True)
class Row:
    """One sample, and what is known of it."""

    sample: Sample
    fate: str
    rejected: Rejected | None
    score: Score | None
    packed: Packed | None
    logprob: float | None  # the teacher's, the mean of the tokens


def write(run_dir: Path, folder: Path, most: int) -> Index | None:
    """Write pages of samples and of their tokens into `folder`; returns the index of what is there. None if there is no sample."""
    shards = _shards(run_dir)
    if not shards:
        return None
    chosen = _chosen(run_dir, shards, most)
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
    """In a word."""
    if score is None or score.explanation.startswith(UNKNOWN):
        return UNKNOWN
    return RIGHT if score.value == 1 else WRONG if score.value == 0 else PARTLY


def _index(shown: int, samples: int) -> Index:
    facets = [
        Facet("verdict", "Verdict", [KEPT, REJECTED, OPEN]),
        Facet("truth", "Against ground truth", [RIGHT, PARTLY, WRONG, UNKNOWN]),
        Facet("reason", "Rejected for", [""]),
        Facet("slice", "Slice", [NO_GROUP]),
    ]
    note = (
        f"{shown:,} of {samples:,} samples are here: those rejected first, the others evenly drawn."
        if shown < samples
        else ""
    )
    return Index(facets, sorts=CERTAIN, note=note)


def _shards(run_dir: Path) -> list[Shard]:
    """Those that are finished, also of a stage that is not."""
    if (run_dir / "generate" / "manifest.json").exists():
        return MeasureCache(run_dir).shards
    return [
        Shard(path, sum(1 for _ in read_lines(path)), "")
        for path in sealed_shards(run_dir / "generate")
    ]


def _judged(run_dir: Path) -> bool:
    """Whether filter is through, with what is there now."""
    return all(
        (run_dir / stage / "manifest.json").exists() for stage in ("generate", "filter")
    ) and is_judged(run_dir)


def _chosen(run_dir: Path, shards: list[Shard], most: int) -> NDArray[np.bool_]:
    """(samples,) which of them are shown: what was rejected first, then the others, evenly drawn."""
    samples = sum(shard.records for shard in shards)
    if samples <= most:
        return np.ones(samples, bool)
    chosen = np.zeros(samples, bool)
    if _judged(run_dir):
        chosen[[one.row for one in read_records(run_dir / "filter" / "rejected", Rejected)]] = True
    for rows in (np.flatnonzero(chosen), np.flatnonzero(~chosen)):
        room = most - int(chosen.sum())
        if room < 0:
            chosen[rows] = False
            room = most
        chosen[rows[np.linspace(0, len(rows) - 1, min(room, len(rows))).astype(np.int64)]] = True
    return chosen


def _rows(run_dir: Path, shards: list[Shard], chosen: NDArray[np.bool_]) -> Iterator[Row]:
    judged = _judged(run_dir)
    frames, grade = TopKFolder(run_dir / "generate"), _Grades(run_dir)
    rejections = read_records(run_dir / "filter" / "rejected", Rejected) if judged else iter(())
    said = next(rejections, None)  # the next one, by row
    row = -1
    for shard in shards:
        grade.open(shard)
        for number, line in enumerate(read_lines(shard.path)):
            row += 1
            rejected = said if said is not None and said.row == row else None
            said = next(rejections, None) if rejected else said
            if chosen[row]:
                sample = Sample.from_line(line, f"{shard.path}:{number + 1}")
                fate = OPEN if not judged else REJECTED if rejected else KEPT
                yield Row(sample, fate, rejected, grade(sample, number), *_thought(frames, sample))


def _thought(frames: TopKFolder, sample: Sample) -> tuple[Packed | None, float | None]:
    if sample.frame is None or not sample.token_ids:
        return None, None
    topk = frames.topk_of(sample)
    return pack(sample.token_ids, topk), float(topk.logprobs[:, 0].mean())


class _Grades:
    """Samples against the ground truth: as the filter found, or at once where that costs nothing; what would need a sandbox is unknown."""

    def __init__(self, run_dir: Path):
        self._task = Config.model_validate(
            read_json(run_dir / "generate" / "begun.json")["config"]
        ).task
        self._measured = MeasureCache(run_dir) if _judged(run_dir) else None
        order = read_order(run_dir / "filter")
        self._measure = next((measures[0] for name, measures in order if name == "correct"), None)
        self._found: Any = None

    def open(self, shard: Shard) -> None:
        self._found = (
            self._measured.shard_column(self._measure, shard)
            if self._measured and self._measure
            else None
        )

    def __call__(self, sample: Sample, number: int) -> Score | None:
        if sample.seed.target is None:
            return None
        if self._found is not None:
            value, why = self._found[number]
            return None if value is None else Score(value=value, explanation=why)
        scorer = scorers.SCORERS.get(self._task.metric)
        return scorer(sample.answer, sample.seed.target, self._task.labels) if scorer else None


def _add(index: Index, row: Row) -> None:
    sample, rejected = row.sample, row.rejected
    reason = f"{rejected.filter}.{rejected.reason}" if rejected else ""
    for facet, value in zip(
        index.facets,
        (row.fate, verdict_of(row.score), reason, sample.seed.group or NO_GROUP),
        strict=True,
    ):
        facet.add(value)
    line = " · ".join(lined(value) for value in sample.seed.inputs.values())
    index.add(
        sample.id, sample.answer if sample.answer is not None else sample.text, line, row.logprob
    )


def _page_row(row: Row) -> dict[str, Any]:
    sample, rejected = row.sample, row.rejected
    return {
        "inputs": [[key, lined(value)] for key, value in sample.seed.inputs.items()],
        "text": sample.text,
        "rationale": sample.rationale,
        "answer": sample.answer,
        "spans": [sample.rationale_tokens, sample.answer_tokens],
        "target": sample.seed.target,
        "why": row.score.explanation if row.score else None,
        "said": [f"{rejected.filter}.{rejected.reason}", str(rejected.value)] if rejected else None,
        "ended": sample.finish_reason,
        "tokens": sample.usage.completion_tokens,
    }
