"""fidelity: how near the untouched student and every arm are to the teacher, on the teacher's own answers to the held-out seeds.

A part of `pipeline evaluate`, where evaluate.fidelity is set. A student reads what the teacher wrote, behind its own prompt and in the form
that it was taught, and its distributions are held against the stored ones; its own greedy text is held against the teacher's.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.data import seeds
from pipeline.evaluation.teacher_forcing import Reader
from pipeline.execution.contract import Job
from pipeline.execution.paths import BASE, TEACHER, trained
from pipeline.execution.progress import Progress
from pipeline.inference.collector import claim_all
from pipeline.records import Faithful, Scored
from pipeline.storage.journal import Shard, commit_if_due
from pipeline.storage.shards import read_records
from pipeline.students import source as student_source

NAME = "fidelity"
NOTES = frozenset[str]()
DISPOSABLE = frozenset[str]()
SHARED = False
SHARD_SIZE = 512
TEACHERS = Path("evaluate") / TEACHER


def parts(config: Config) -> list[str]:
    return [BASE, *config.train.arms] if config.evaluate.fidelity else []


def sections(config: Config, part: str) -> list[str]:
    return ["task.eval_seeds", "evaluate.fidelity", f"train.arms.{part}.form"]


def reads(config: Config, part: str) -> list[str]:
    return [str(TEACHERS), f"evaluate/{part}", trained(part)]


def files(config: Config, part: str) -> list[Path]:
    source = [Path(config.task.eval_seeds.path)] if config.task.eval_seeds.path else []
    return [*source, Path(config.train.prompt), Path(config.generate.prompt[0])]


def identities(config: Config, part: str) -> Mapping[str, str]:
    return seeds.identities(config.task.eval_seeds) | (
        student_source.identities(config) if part == BASE else {}
    )


def run(job: Job) -> dict[str, Any]:
    """Measure one student on every answer of the teacher's that it was not measured on yet."""
    answers = {answer.seed_id: answer for answer in read_records(job.run_dir / TEACHERS, Scored)}
    shards = claim_all(job.folder, list(answers), Faithful, SHARD_SIZE)
    there = len(answers) - sum(len(shard.missing) for shard in shards)
    if shards:
        own = {
            answer.seed_id: answer
            for answer in read_records(job.run_dir / "evaluate" / job.part, Scored)
        }
        reader = Reader.of(job, trained(job.part), TEACHERS, list(answers.values()))
        progress = Progress(f"fidelity {job.part}", len(answers), there, unit="answers")
        for shard in shards:
            _fill(shard, reader, answers, own, progress)
        progress.show(last=True)
    found = list(read_records(job.folder, Faithful))
    return {
        "answers": len(found),
        "tokens": sum(one.tokens for one in found),
        "left_out": sum(not one.tokens for one in found),
    }


def summary(config: Config) -> str:
    return f"{NAME}: {', '.join(parts(config))}"


def _fill(
    shard: Shard[Faithful],
    reader: Reader,
    answers: Mapping[str, Scored],
    own: Mapping[str, Scored],
    progress: Progress,
) -> None:
    try:
        for sums in reader.measure([answers[name] for name in shard.missing]):
            for name, (tokens, nats, same) in sums.items():
                shard.add(
                    Faithful(
                        id=name,
                        tokens=tokens,
                        nats=nats,
                        same=same,
                        **reader.overlap(own[name], answers[name]),
                    )
                )
                progress.add(1, tokens)
            commit_if_due([shard])
            progress.show()
        shard.seal()
    finally:
        shard.release()
