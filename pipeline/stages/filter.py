"""filter: keep the good, say why for every other one.

Every sample is measured once, by as many processes as there are cores; RUN/measured keeps what was found. The filters then judge columns of
measurements, and what is written is who is kept and who is not, by number: no sample is copied.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.execution.contract import Job
from pipeline.execution.manifest import read_manifest
from pipeline.filters import build
from pipeline.filters.confidence.filters import CALIBRATED, soften
from pipeline.filters.correctness.filters import JUDGE, agreement_with_truth
from pipeline.filters.measure_cache import Measured, processes
from pipeline.filters.measures import IDENTITY
from pipeline.filters.verdict import Verdict
from pipeline.records import Rejected
from pipeline.storage.files import read_json, write_json
from pipeline.storage.samples import keep, kept_rows
from pipeline.storage.shards import read_records, write_shards

NAME = "filter"
SHARED = False
ORDER = "filters.json"  # the filters that were run, in order, each with the names of what it was told by


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
    """Pass all samples through the filters and write kept/ and rejected/. An empty result is an error."""
    measured = Measured(job.run_dir)
    chosen = build.active(job.config)
    measured.find(
        [IDENTITY, *(measure for one in chosen for measure in one.measures)],
        processes(job.config.filter),
    )
    ids = measured.column(IDENTITY)
    left: NDArray[np.int64] = np.arange(measured.samples)
    alive = np.ones(measured.samples, bool)
    turned_down: dict[int, tuple[str, Verdict]] = {}
    complaint = ""
    marks = None
    seen = {}  # by filter: what came to it
    for one in chosen:
        seen[one.name] = left
        asked = [one.ask(job.run_dir, left)] if one.ask else []
        marks = asked[0][1] if one.name == JUDGE else marks
        verdicts = one.judge(left, *map(measured.column, one.measures), *asked)
        turned_down |= {row: (one.name, verdict) for row, verdict in verdicts.items()}
        alive[list(verdicts)] = False
        before, left = len(left), np.flatnonzero(alive)
        if not len(left):
            complaint = _eaten(job.folder, one.name, before, verdicts)
            break
    write_json(
        job.folder / ORDER,
        [[one.name, [measure.name for measure in one.measures]] for one in chosen],
    )
    write_shards(
        job.folder / "rejected",
        (_rejected(str(ids[row]), row, *turned_down[row]) for row in sorted(turned_down)),
    )
    if complaint:
        raise PipelineError(complaint)
    keep(job.folder / "kept", left, job.run_dir / "generate")
    if CALIBRATED in seen:
        effect = soften(job.config, measured, seen[CALIBRATED], left, job.folder / "kept")
        write_json(job.folder / "calibration.json", effect)
    if marks is not None:
        write_json(job.folder / "judge.json", agreement_with_truth(job.config, measured, marks))
    return count(job)


def count(job: Job) -> dict[str, Any]:
    """What went in, what was kept, and how many each reason took, from the files; they must add up."""
    reasons: Counter[str] = Counter(
        f"{r.filter}.{r.reason}" for r in read_records(job.folder / "rejected", Rejected)
    )
    kept = len(kept_rows(job.folder / "kept"))
    given = int(read_manifest(job.run_dir, "generate")["counts"]["samples"])
    assert given == kept + reasons.total(), (
        f"{given} samples in, {kept} kept, {reasons.total()} rejected"
    )
    order = [name for name, _ in read_json(job.folder / ORDER)]
    taken = sorted(reasons.items(), key=lambda item: order.index(item[0].rpartition(".")[0]))
    notes = {
        name: read_json(path)
        for name in ("calibration", "judge")
        if (path := job.folder / f"{name}.json").exists()
    }
    return {"samples": given, "kept": kept, "rejected": dict(taken), **notes}


def summary(config: Config) -> str:
    """The waterfall: what each reason took, and what was left."""
    counts = read_manifest(Path(config.run_dir), NAME)["counts"]
    lines = [f"filter: {counts['samples']:,} samples in"]
    lines += [f"  {-number:>8,}  {reason}" for reason, number in counts["rejected"].items()]
    lines.append(f"  {counts['kept']:>8,}  kept ({counts['kept'] / counts['samples']:.1%})")
    return "\n".join([*lines, *_notes(counts)])


def _notes(counts: Mapping[str, Any]) -> Iterator[str]:
    """What ground truth says of calibration and judge."""
    if effect := counts.get("calibration"):
        yield (
            f"  right, of {effect['rows']:,} labels of known truth: text {effect['text']:.3f}, likeliest label {effect['raw']:.3f}, "
            f"likeliest calibrated label {effect['calibrated']:.3f}"
        )
    if marks := counts.get("judge"):
        yield f"  judge: of two answers, one right and one wrong, the right one has the higher mark in {marks['agreement']:.3f} of cases"


def _rejected(identifier: str, row: int, name: str, verdict: Verdict) -> Rejected:
    return Rejected(id=identifier, row=row, filter=name, reason=verdict.reason, value=verdict.value)


def _eaten(folder: Path, name: str, before: int, verdicts: Mapping[int, Verdict]) -> str:
    reason, number = Counter(verdict.reason for verdict in verdicts.values()).most_common(1)[0]
    example = next(verdict.value for verdict in verdicts.values() if verdict.reason == reason)
    return (
        f"{folder}: nothing is left: filter '{name}' turned down the last {before:,} samples ({number:,} as {reason}, "
        f"such as {example!r}); see {folder / 'rejected'}, then mend the prompt or change filter.*"
    )
