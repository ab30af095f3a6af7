"""The fidelity stage: how close the base student and every arm are to the teacher.

`pipeline evaluate` runs it where evaluate.fidelity is set. A student reads the teacher's answers to
the held-out examples, behind its own prompt and in the form that it was trained for. Its token
distributions are compared with the stored ones, and its own greedy text with the teacher's.
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
    prompt_files = [Path(config.train.prompt), Path(config.generate.prompt[0])]
    return [*seeds.files(config.task.eval_seeds), *prompt_files]


def identities(config: Config, part: str) -> Mapping[str, str]:
    return seeds.identities(config.task.eval_seeds) | (
        student_source.identities(config) if part == BASE else {}
    )


def run(job: Job) -> dict[str, Any]:
    """Measure one student on every answer of the teacher that it was not measured on yet."""
    answers = _by_seed(job.run_dir / TEACHERS)
    shards = claim_all(job.folder, list(answers), Faithful, SHARD_SIZE)
    done = len(answers) - sum(len(shard.missing) for shard in shards)
    if shards:
        own = _by_seed(job.run_dir / "evaluate" / job.part)
        reader = Reader.of(job, trained(job.part), TEACHERS, list(answers.values()))
        progress = Progress(f"fidelity {job.part}", len(answers), done, unit="answers")
        for shard in shards:
            _fill(shard, reader, answers, own, progress)
        progress.show(last=True)
    records = list(read_records(job.folder, Faithful))
    return {
        "answers": len(records),
        "tokens": sum(record.tokens for record in records),
        "left_out": sum(not record.tokens for record in records),
    }


def _by_seed(folder: Path) -> dict[str, Scored]:
    """Return the answers of one model by the id of their seed."""
    return {answer.seed_id: answer for answer in read_records(folder, Scored)}


def _fill(
    shard: Shard[Faithful],
    reader: Reader,
    answers: Mapping[str, Scored],
    own: Mapping[str, Scored],
    progress: Progress,
) -> None:
    """Measure the missing answers of one shard and seal it."""
    try:
        for sums in reader.measure([answers[name] for name in shard.missing]):
            for name, (tokens, nats, same) in sums.items():
                overlap = reader.overlap(own[name], answers[name])
                shard.add(Faithful(id=name, tokens=tokens, nats=nats, same=same, **overlap))
                progress.add(1, tokens)
            commit_if_due([shard])
            progress.show()
        shard.seal()
    finally:
        shard.release()
