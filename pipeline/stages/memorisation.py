"""The memorisation stage: how many training rows a student repeats word for word.

`pipeline evaluate` runs it where evaluate.memorisation is set. A student gets the prompt of a
training row and the first part of its reply, and continues greedily (Carlini et al. 2021,
"Extracting Training Data from Large Language Models"). Text that is easy to guess comes back
without memorisation, so the same number of rows that the arm has not seen is the control. Canaries
are ranked by their likelihood (pipeline/training/canaries.py). The base student is asked about the
first arm's rows.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, takewhile
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.config import Config, Memorisation
from pipeline.data import seeds
from pipeline.data.encoding import IGNORED, Encoder, Example
from pipeline.errors import PipelineError
from pipeline.evaluation import optional_figures
from pipeline.execution.contract import Job
from pipeline.execution.paths import BASE, TEACHER, trained, trained_model
from pipeline.execution.progress import Progress
from pipeline.inference.collector import Collector, Question, claim_all, unexpected_failure
from pipeline.models.backends import open_student
from pipeline.models.base import Completion, Failure, Model, Request, Sampling
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Memorised, Rendered, Sample, Scored, digest
from pipeline.storage.files import read_json, write_json
from pipeline.storage.journal import Shard
from pipeline.storage.shards import read_records
from pipeline.students import source as student_source
from pipeline.training import canaries, dataset
from pipeline.training.canaries import Canary

log = logging.getLogger(__name__)

NAME = "memorisation"
DRAW_SEED = 0  # of the rows and of the other secrets
NOTES = frozenset[str]()
DISPOSABLE = frozenset[str]()
SHARED = False
SHARD_SIZE = 512
FEWEST = 10  # rows; a share of fewer means little
NO_TEXT = Rendered(None, "")  # requests are made of token ids


@dataclass(frozen=True)
class _Row:
    """A row that a student is asked to continue, and whether it was trained on it."""

    example: Example
    trained: bool


def parts(config: Config) -> list[str]:
    return [BASE, *config.train.arms] if config.evaluate.memorisation else []


def sections(config: Config, part: str) -> list[str]:
    train = [f"train.{name}" for name in ("rows", "holdout", "canaries", "seed")]
    return [
        "evaluate.memorisation",
        "evaluate.backend",
        "evaluate.engine",
        *train,
        f"train.arms.{_arm(config, part)}",
    ]


def reads(config: Config, part: str) -> list[str]:
    learned = ["generate", "filter"] if config.train.rows == "filter" else ["score"]
    taught = config.train.arms[_arm(config, part)].text == "teacher"
    return [*(learned if taught else []), trained(part), f"evaluate/{TEACHER}"]


def files(config: Config, part: str) -> list[Path]:
    sources = (config.task.seeds, config.task.eval_seeds)
    return [*chain.from_iterable(map(seeds.files, sources)), Path(config.train.prompt)]


def identities(config: Config, part: str) -> Mapping[str, str]:
    return seeds.identities(config.task.eval_seeds) | (
        student_source.identities(config) if part == BASE else {}
    )


def run(job: Job) -> dict[str, Any]:
    """Ask one student to continue rows that it was trained on and others; rank its canaries."""
    config, settings = job.config, job.config.evaluate.memorisation
    assert settings is not None
    path, revision = student_source.saved_model(trained_model(job.run_dir, job.part))
    rows = _rows(job, settings, Tokenizer(path, revision)) if settings.rows else {}
    shards = claim_all(job.folder, list(rows), Memorised, SHARD_SIZE)
    canary_file = job.folder / "canaries.json"
    if shards or not canary_file.exists():
        log.info(
            f"{NAME} {job.part}: {len(rows):,} rows, {config.train.canaries:,} canaries; "
            "loading the model"
        )
        model = open_student(
            config.evaluate, path, revision, config.teacher.replies or [], job.engine_log
        )
        try:
            _ask(job, settings, model, rows, shards)
            write_json(canary_file, _exposures(job, model))
        finally:
            model.close()
    records = list(read_records(job.folder, Memorised))
    figures = {**_figures(settings, records), "canaries": read_json(canary_file)}
    write_json(job.folder / optional_figures.FILE, figures)
    return {"rows": len(rows), "canaries": config.train.canaries}


def _arm(config: Config, part: str) -> str:
    """Return the arm whose rows a model is asked about."""
    return next(iter(config.train.arms)) if part == BASE else part


def _rows(job: Job, settings: Memorisation, tokenizer: Tokenizer) -> dict[str, _Row]:
    """Return rows that the arm has seen and as many that it has not, by id.

    Raises PipelineError where too few are long enough.
    """
    config, arm = job.config, _arm(job.config, job.part)
    encoder = dataset.make_encoder(config, arm, tokenizer)

    def is_long(example: Example) -> bool:
        return len(_cut(example, settings.prefix)[1]) >= settings.tokens

    seen, unseen = dataset.sample_rows(config, arm, encoder, settings.rows, DRAW_SEED, is_long)
    if len(unseen) < FEWEST:
        answers = _teacher_answers(job, encoder)
        unseen = [example for example in answers if is_long(example)][: settings.rows]
    _check_enough(job, settings, len(seen), "training rows")
    control = "rows that it was not trained on, held-out answers of the teacher among them,"
    _check_enough(job, settings, len(unseen), control)
    rows = [_Row(example, trained=True) for example in seen]
    rows += [_Row(example, trained=False) for example in unseen]
    return {digest(row.trained, row.example.id): row for row in rows}


def _check_enough(job: Job, settings: Memorisation, count: int, rows: str) -> None:
    needed = min(FEWEST, settings.rows)
    if count < needed:
        raise PipelineError(
            f"{NAME} {job.part}: only {count} {rows} have {settings.tokens} tokens left behind "
            f"their prefix, and {needed} are needed; lower evaluate.memorisation.tokens or "
            ".prefix. Short labels cannot be memorised: set evaluate.memorisation.rows=0 for "
            "canaries alone, or evaluate.memorisation=null"
        )


def _teacher_answers(job: Job, encoder: Encoder) -> list[Example]:
    """Return the teacher's held-out answers as training rows, in an order drawn by the seed."""
    by_id = {seed.id: seed for seed in seeds.load(job.config.task.eval_seeds)}
    answers = sorted(
        read_records(job.run_dir / "evaluate" / TEACHER, Scored),
        key=lambda answer: digest("drawn", DRAW_SEED, answer.id),
    )
    examples: list[Example] = []
    for answer in answers:
        sample = Sample(
            id=answer.id,
            seed=by_id[answer.seed_id],
            index=0,
            teacher=TEACHER,
            prompt_digest="",
            text=answer.text,
            answer=answer.score.answer,
            finish_reason=answer.finish_reason,
            usage=answer.usage,
        )
        examples += dataset.examples(encoder, sample)[-1:]
    return examples


def _cut(example: Example, prefix: float) -> tuple[list[int], list[int]]:
    """Return (token ids that the student is given, those that it would repeat from memory)."""
    prompt = sum(label == IGNORED for label in example.labels)
    end = prompt + int(prefix * (len(example.input_ids) - prompt))
    return example.input_ids[:end], example.input_ids[end:]


def _ask(
    job: Job,
    settings: Memorisation,
    model: Model,
    rows: Mapping[str, _Row],
    shards: Sequence[Shard[Memorised]],
) -> None:
    """Have the student continue each row, and store how far it repeats the row."""
    cut = {name: _cut(row.example, settings.prefix) for name, row in rows.items()}
    done = len(rows) - sum(len(shard.missing) for shard in shards)

    def question(name: str) -> Question[Memorised]:
        given, rest = cut[name]
        return Question(Request(name, NO_TEXT, given), partial(_memorised, name, rows[name], rest))

    sampling = Sampling(max((len(rest) for _, rest in cut.values()), default=1))
    progress = Progress(f"{NAME} {job.part}", len(rows), done, unit="rows")
    Collector(question, unexpected_failure, progress).run(
        lambda requests: model.generate(requests, sampling), shards
    )


def _memorised(
    name: str, row: _Row, rest: Sequence[int], completion: Completion
) -> tuple[Memorised, None]:
    repeated = same(rest, completion.token_ids or ())
    record = Memorised(
        id=name, row=row.example.id, trained=row.trained, tokens=len(rest), same=repeated
    )
    return record, None


def same(rest: Sequence[int], reply: Sequence[int]) -> int:
    """Return how many tokens the two texts share at their beginning."""
    pairs = zip(rest, reply, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _exposures(job: Job, model: Model) -> list[dict[str, Any]]:
    """Return each canary with its exposure. All secrets are scored behind the same lead."""
    planted = canaries.generate(job.config.train.canaries, job.config.train.seed)
    exposures = []
    ranked: list[Canary] = []
    for canary in planted:
        others = canaries.alternatives(canary, canaries.ALTERNATIVES, DRAW_SEED)
        ranked += [canary, *others]
    loglikelihoods = _loglikelihoods(job, model, ranked)
    width = 1 + canaries.ALTERNATIVES
    for number, canary in enumerate(planted):
        own, *rest = loglikelihoods[number * width : (number + 1) * width]
        exposures.append({"text": canary.text, "exposure": canaries.exposure(own, rest)})
    return exposures


def _loglikelihoods(job: Job, model: Model, secrets: Sequence[Canary]) -> list[float]:
    """Return the log-likelihood of each secret behind its lead, in nats."""
    assert model.tokenizer is not None
    requests = []
    for number, canary in enumerate(secrets):
        lead, secret = canary.encode(model.tokenizer)
        requests.append(Request(str(number), NO_TEXT, lead, reply_ids=secret))
    values = [0.0] * len(secrets)
    for batch in model.score(iter(requests), 1):
        for answer in batch:
            if isinstance(answer, Failure):
                raise PipelineError(
                    f"{NAME} {job.part}: a canary cannot be scored, "
                    f"{answer.reason}: {answer.message}"
                )
            assert answer.topk is not None
            values[int(answer.id)] = float(answer.topk.logprobs[:, 0].sum())
    return values


def _figures(settings: Memorisation, records: Sequence[Memorised]) -> dict[str, Any]:
    trained = _share([record for record in records if record.trained], settings.tokens)
    unseen = _share([record for record in records if not record.trained], settings.tokens)
    difference = None
    if trained["rows"] and unseen["rows"]:
        difference = trained["verbatim"] - unseen["verbatim"]
    return {
        "trained": trained,
        "unseen": unseen,
        "difference": difference,
        "tokens": settings.tokens,
    }


def _share(records: Sequence[Memorised], tokens: int) -> dict[str, Any]:
    """Return the share of rows of which at least `tokens` tokens came back, and the median."""
    if not records:
        return {"rows": 0, "verbatim": None, "longest": None}
    return {
        "rows": len(records),
        "verbatim": sum(record.same >= tokens for record in records) / len(records),
        "longest": median(record.same for record in records),
    }
