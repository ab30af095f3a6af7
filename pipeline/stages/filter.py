"""filter: keep the good, say why for every other one."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import prompts
from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.filters import active
from pipeline.records import Rejected, Sample
from pipeline.stage import Job, read_manifest
from pipeline.store import read_records, write_shards

NAME = "filter"
SHARED = False


def parts(config: Config) -> list[str]:
    return [""]


def sections(config: Config, part: str) -> list[str]:
    return ["filter", "task.metric", "task.labels"]


def reads(config: Config, part: str) -> list[str]:
    return ["generate"]


def files(config: Config, part: str) -> list[Path]:
    return []


def identities(config: Config, part: str) -> Mapping[str, str]:
    return {}


def run(job: Job) -> dict[str, Any]:
    """Pass all samples through the filters and write kept/ and rejected/. An empty result is an error."""
    source = job.run_dir / "generate"
    left = list(read_records(source, Sample))
    rejected: list[Rejected] = []
    asked = [prompts.load(path) for path in sorted((source / "prompts").glob("*.md"), key=lambda path: int(path.stem))]
    for one in active(job.config.filter, job.config.task, asked):
        verdicts = one.apply(left)
        rejected += [
            Rejected(id=s.id, seed_id=s.seed.id, filter=one.name, reason=v.reason, value=v.value, text=s.text)
            for s, v in zip(left, verdicts, strict=True)
            if v is not None
        ]
        before, left = len(left), [s for s, v in zip(left, verdicts, strict=True) if v is None]
        if not left:
            write_shards(job.folder / "rejected", rejected)
            raise PipelineError(_eaten(job.folder, one.name, before, rejected))
    write_shards(job.folder / "rejected", rejected)
    write_shards(job.folder / "kept", left)
    return count(job)


def count(job: Job) -> dict[str, Any]:
    """What went in, what was kept, and how many each reason took, from the files; they must add up."""
    reasons: Counter[str] = Counter(f"{r.filter}.{r.reason}" for r in read_records(job.folder / "rejected", Rejected))
    kept = sum(1 for _ in read_records(job.folder / "kept", Sample))
    given = int(read_manifest(job.run_dir, "generate")["counts"]["samples"])
    assert given == kept + reasons.total(), f"{given} samples in, {kept} kept, {reasons.total()} rejected"
    return {"samples": given, "kept": kept, "rejected": dict(reasons)}


def summary(config: Config) -> str:
    """The waterfall: what each reason took, and what was left."""
    counts = read_manifest(Path(config.run_dir), NAME)["counts"]
    lines = [f"filter: {counts['samples']:,} samples in"]
    lines += [f"  {-number:>8,}  {reason}" for reason, number in counts["rejected"].items()]
    lines.append(f"  {counts['kept']:>8,}  kept ({counts['kept'] / counts['samples']:.1%})")
    return "\n".join(lines)


def _eaten(folder: Path, name: str, before: int, rejected: list[Rejected]) -> str:
    last = [r for r in rejected if r.filter == name]
    reason, number = Counter(r.reason for r in last).most_common(1)[0]
    return (
        f"{folder}: nothing is left: filter '{name}' turned down the last {before:,} samples ({number:,} as {reason}, "
        f"such as {last[0].value!r}); see {folder / 'rejected'}, then mend the prompt or change filter.*"
    )
