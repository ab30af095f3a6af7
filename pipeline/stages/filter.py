"""The filter stage: keep the good samples, and give a reason for every rejected one.

Each sample is measured once, in parallel processes; RUN/measured stores the results. The filters
then judge columns of these measures. The stage writes row numbers and copies no sample.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.execution.contract import Job
from pipeline.execution.manifest import read_manifest
from pipeline.filters import build
from pipeline.filters.measure_cache import (
    ORDER_FILE,
    MeasureCache,
    read_order,
    worker_count,
    write_order,
)
from pipeline.filters.measures import SAMPLE_IDS
from pipeline.filters.named_filter import NamedFilter, Outcome
from pipeline.filters.verdict import Verdict
from pipeline.records import Rejected
from pipeline.storage.files import read_json, write_json
from pipeline.storage.samples import keep, kept_rows
from pipeline.storage.shards import read_records, write_shards

NAME = "filter"
NOTES = frozenset({ORDER_FILE, *(f"{name}.json" for name in build.NOTES)})
DISPOSABLE = frozenset({ORDER_FILE, "rejected"})
SHARED = False


def parts(config: Config) -> list[str]:
    return [""]


def sections(config: Config, part: str) -> list[str]:
    unseen = ["task.eval_seeds"] if config.filter.contamination else []
    return ["filter", "task.metric", "task.labels", "task.verifier", *unseen]


def reads(config: Config, part: str) -> list[str]:
    return ["generate"]


def files(config: Config, part: str) -> list[Path]:
    return build.files(config)


def identities(config: Config, part: str) -> Mapping[str, str]:
    return build.identities(config)


def run(job: Job) -> dict[str, Any]:
    """Pass all samples through the filters and write kept/ and rejected/.

    Raises PipelineError if no sample is kept; rejected/ is written even then.
    """
    measured = MeasureCache(job.run_dir)
    chosen = build.active(job.config)
    measures = [measure for filter_ in chosen for measure in filter_.measures]
    measured.fill([SAMPLE_IDS, *measures], worker_count(job.config.filter))
    result = _judge(job, measured, chosen)
    write_order(job.folder, [(filter_.name, filter_.measures) for filter_ in chosen])
    _write_rejected(job.folder, measured.column(SAMPLE_IDS), result.rejected)
    if result.complaint:
        raise PipelineError(result.complaint)
    kept_folder = job.folder / "kept"
    keep(kept_folder, result.kept, job.run_dir / "generate")
    for filter_ in chosen:
        if filter_.after:
            reached, asked = result.reached[filter_.name], result.asked.get(filter_.name)
            outcome = Outcome(measured, reached, result.kept, kept_folder, asked)
            for note, content in filter_.after(outcome).items():
                write_json(job.folder / f"{note}.json", content)
    return count(job)


@dataclass
class _Result:
    """What the filters decided: the kept rows, and by row why it was rejected.

    `reached` and `asked` hold, by filter, the rows that came to it and what its model answered.
    `complaint` is set if no row is kept.
    """

    kept: NDArray[np.int64]
    rejected: dict[int, tuple[str, Verdict]] = field(default_factory=dict)
    reached: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)
    complaint: str = ""


def _judge(job: Job, measured: MeasureCache, chosen: Sequence[NamedFilter]) -> _Result:
    """Let each filter judge the rows that the earlier ones kept."""
    result = _Result(np.arange(measured.samples))
    is_kept = np.ones(measured.samples, bool)
    for filter_ in chosen:
        rows = result.reached[filter_.name] = result.kept
        columns = [measured.column(measure) for measure in filter_.measures]
        if filter_.ask:
            result.asked[filter_.name] = filter_.ask(job.run_dir, rows)
            columns.append(result.asked[filter_.name])
        verdicts = filter_.judge(rows, *columns)
        result.rejected |= {row: (filter_.name, verdict) for row, verdict in verdicts.items()}
        is_kept[list(verdicts)] = False
        result.kept = np.flatnonzero(is_kept)
        if not len(result.kept):
            result.complaint = _nothing_kept(job.folder, filter_.name, len(rows), verdicts)
            break
    return result


def count(job: Job) -> dict[str, Any]:
    """Count the samples read, kept and rejected for each reason, from the files."""
    reasons: Counter[str] = Counter(
        f"{r.filter}.{r.reason}" for r in read_records(job.folder / "rejected", Rejected)
    )
    kept = len(kept_rows(job.folder / "kept"))
    given = int(read_manifest(job.run_dir, "generate")["counts"]["samples"])
    assert given == kept + reasons.total(), (
        f"{given} samples in, {kept} kept, {reasons.total()} rejected"
    )
    order = [name for name, _ in read_order(job.folder)]
    taken = sorted(reasons.items(), key=lambda item: order.index(item[0].rpartition(".")[0]))
    notes = {}
    for name in build.NOTES:
        path = job.folder / f"{name}.json"
        if path.exists():
            notes[name] = read_json(path)
    return {"samples": given, "kept": kept, "rejected": dict(taken), **notes}


def summary(config: Config) -> str:
    """Return the waterfall: how many samples each reason rejected, and how many were kept."""
    counts = read_manifest(Path(config.run_dir), NAME)["counts"]
    lines = [f"filter: {counts['samples']:,} samples in"]
    lines += [f"  {-number:>8,}  {reason}" for reason, number in counts["rejected"].items()]
    lines.append(f"  {counts['kept']:>8,}  kept ({counts['kept'] / counts['samples']:.1%})")
    lines += [
        f"  {describe(counts[name])}" for name, describe in build.NOTES.items() if counts.get(name)
    ]
    return "\n".join(lines)


def _write_rejected(folder: Path, ids: Any, rejected: Mapping[int, tuple[str, Verdict]]) -> None:
    write_shards(
        folder / "rejected",
        (_rejected(str(ids[row]), row, *rejected[row]) for row in sorted(rejected)),
    )


def _rejected(identifier: str, row: int, name: str, verdict: Verdict) -> Rejected:
    return Rejected(id=identifier, row=row, filter=name, reason=verdict.reason, value=verdict.value)


def _nothing_kept(folder: Path, name: str, rows: int, verdicts: Mapping[int, Verdict]) -> str:
    reason, number = Counter(verdict.reason for verdict in verdicts.values()).most_common(1)[0]
    example = next(verdict.value for verdict in verdicts.values() if verdict.reason == reason)
    return (
        f"{folder}: no sample is kept: filter '{name}' rejected the last {rows:,} samples "
        f"({number:,} as {reason}, such as {example!r}); "
        f"see {folder / 'rejected'}, then fix the prompt or change filter.*"
    )
