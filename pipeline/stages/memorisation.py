"""memorisation: what the untouched student and every arm can be made to say word for word of the rows that they were trained on.

Runs behind `pipeline evaluate`, where evaluate.memorisation is set. A student is given the prompt of a training row and the first part of
what it was taught to reply, and goes on greedily (Carlini et al. 2021, "Extracting Training Data from Large Language Models"). Text that is
easy to guess comes back without having been memorised, so as many rows that the arm has not seen are asked in the same way. Canaries are
ranked by their likelihood (pipeline/training/canaries.py). The untouched student is asked about the first arm's rows.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.config import Config
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
from pipeline.storage.shards import read_records
from pipeline.students import source as student_source
from pipeline.training import canaries, dataset

log = logging.getLogger(__name__)

NAME = "memorisation"
NOTES = frozenset[str]()
DISPOSABLE = frozenset[str]()
SHARED = False
SHARD_SIZE = 512
FEWEST = 10  # rows, of which a share is worth giving
NOTHING = Rendered(None, "")  # requests are by ids


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
    source = [Path(path) for path in (config.task.seeds.path, config.task.eval_seeds.path) if path]
    return [*source, Path(config.train.prompt)]


def identities(config: Config, part: str) -> Mapping[str, str]:
    return seeds.identities(config.task.eval_seeds) | (
        student_source.identities(config) if part == BASE else {}
    )


def run(job: Job) -> dict[str, Any]:
    """Ask one student to go on with rows that it was trained on and with others, and rank its canaries."""
    config, settings = job.config, job.config.evaluate.memorisation
    assert settings is not None
    path, revision = student_source.saved_model(trained_model(job.run_dir, job.part))
    wanted = _wanted(job, Tokenizer(path, revision)) if settings.rows else {}
    shards = claim_all(job.folder, list(wanted), Memorised, SHARD_SIZE)
    ranked = job.folder / "canaries.json"
    if shards or not ranked.exists():
        log.info(
            f"{NAME} {job.part}: {len(wanted):,} rows, {config.train.canaries:,} canaries; loading the model"
        )
        model = open_student(
            config.evaluate, path, revision, config.teacher.replies or [], job.engine_log
        )
        try:
            _ask(job, model, wanted, shards)
            write_json(ranked, _exposures(job, model))
        finally:
            model.close()
    write_json(
        job.folder / optional_figures.FILE, _figures(job, list(read_records(job.folder, Memorised)))
    )
    return {"rows": len(wanted), "canaries": config.train.canaries}


def summary(config: Config) -> str:
    return f"{NAME}: {', '.join(parts(config))}"


def _arm(config: Config, part: str) -> str:
    """Whose rows a model is asked about."""
    return next(iter(config.train.arms)) if part == BASE else part


def _wanted(job: Job, tokenizer: Tokenizer) -> dict[str, tuple[bool, Example]]:
    """By id, rows that the arm has seen and as many that it has not. Raises PipelineError where too few are long enough."""
    config, arm = job.config, _arm(job.config, job.part)
    settings = config.evaluate.memorisation
    assert settings is not None
    encoder = dataset.make_encoder(config, arm, tokenizer)

    def is_long(row: Example) -> bool:
        return len(_cut(row, settings.prefix)[1]) >= settings.tokens

    seen, unseen = dataset.sample_rows(config, arm, encoder, settings.rows, settings.seed, is_long)
    if len(unseen) < FEWEST:
        unseen = [row for row in _answers(job, encoder) if is_long(row)][: settings.rows]
    for found, whose in (
        (seen, "training rows"),
        (unseen, "rows that it was not trained on, held-out answers of the teacher among them,"),
    ):
        if len(found) < min(FEWEST, settings.rows):
            raise PipelineError(
                f"{NAME} {job.part}: only {len(found)} {whose} have {settings.tokens} tokens left behind their prefix, and "
                f"{min(FEWEST, settings.rows)} are needed; lower evaluate.memorisation.tokens or .prefix. Short labels are no text that "
                "could be memorised: set evaluate.memorisation.rows=0 for canaries alone, or evaluate.memorisation=null"
            )
    return {
        digest(of, row.id): (of, row)
        for of, found in ((True, seen), (False, unseen))
        for row in found
    }


def _answers(job: Job, encoder: Encoder) -> list[Example]:
    """The teacher's answers to held-out seeds as training rows would be, in an order drawn by the seed."""
    config = job.config
    assert config.evaluate.memorisation is not None
    drawn = config.evaluate.memorisation.seed
    by_id = {seed.id: seed for seed in seeds.load(config.task.eval_seeds)}
    found: list[Example] = []
    for answer in sorted(
        read_records(job.run_dir / "evaluate" / TEACHER, Scored),
        key=lambda answer: digest("drawn", drawn, answer.id),
    ):
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
        found += dataset.examples(encoder, sample)[-1:]
    return found


def _cut(row: Example, prefix: float) -> tuple[list[int], list[int]]:
    """Token ids that the student is given, and those it would go on with if it knew the row."""
    blank = sum(label == IGNORED for label in row.labels)
    at = blank + int(prefix * (len(row.input_ids) - blank))
    return row.input_ids[:at], row.input_ids[at:]


def _ask(job: Job, model: Model, wanted: Mapping[str, tuple[bool, Example]], shards: Any) -> None:
    settings = job.config.evaluate.memorisation
    assert settings is not None
    cut = {identifier: _cut(row, settings.prefix) for identifier, (_, row) in wanted.items()}
    there = len(wanted) - sum(len(shard.missing) for shard in shards)

    def question(identifier: str) -> Question[Memorised]:
        of, row = wanted[identifier]
        given, rest = cut[identifier]
        return Question(
            Request(identifier, NOTHING, given), partial(_memorised, identifier, row.id, of, rest)
        )

    sampling = Sampling(max((len(rest) for _, rest in cut.values()), default=1))
    progress = Progress(f"{NAME} {job.part}", len(wanted), there, unit="rows")
    Collector(question, unexpected_failure, progress).run(
        lambda requests: model.generate(requests, sampling), shards
    )


def _memorised(
    identifier: str, row: str, trained: bool, rest: Sequence[int], completion: Completion
) -> tuple[Memorised, None]:
    return Memorised(
        id=identifier,
        row=row,
        trained=trained,
        tokens=len(rest),
        same=same(rest, completion.token_ids or ()),
    ), None


def same(rest: Sequence[int], said: Sequence[int]) -> int:
    """How many tokens two texts begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(rest, said, strict=False)))


def _exposures(job: Job, model: Model) -> list[dict[str, Any]]:
    """Each canary with its exposure. Every secret is read behind the same lead."""
    config = job.config
    assert config.evaluate.memorisation is not None
    others, tokenizer, drawn = (
        config.evaluate.memorisation.alternatives,
        model.tokenizer,
        config.evaluate.memorisation.seed,
    )
    assert tokenizer is not None
    planted = canaries.generate(config.train.canaries, config.train.seed)
    secrets = [
        one for canary in planted for one in (canary, *canaries.alternatives(canary, others, drawn))
    ]
    requests = [
        Request(str(number), NOTHING, lead, reply_ids=secret)
        for number, (lead, secret) in enumerate(one.encode(tokenizer) for one in secrets)
    ]
    loglikelihoods = [0.0] * len(secrets)
    for batch in model.score(iter(requests), 1):
        for answer in batch:
            if isinstance(answer, Failure):
                raise PipelineError(
                    f"{NAME} {job.part}: a canary cannot be read, {answer.reason}: {answer.message}"
                )
            assert answer.topk is not None
            loglikelihoods[int(answer.id)] = float(answer.topk.logprobs[:, 0].sum())
    width = 1 + others
    ranked = [loglikelihoods[first : first + width] for first in range(0, len(secrets), width)]
    return [
        {"text": canary.text, "exposure": canaries.exposure(own, rest)}
        for canary, (own, *rest) in zip(planted, ranked, strict=True)
    ]


def _figures(job: Job, found: list[Memorised]) -> dict[str, Any]:
    settings = job.config.evaluate.memorisation
    assert settings is not None
    trained, unseen = ([one for one in found if one.trained is of] for of in (True, False))
    shares = {
        name: _share(among, settings.tokens)
        for name, among in (("trained", trained), ("unseen", unseen))
    }
    more = (
        shares["trained"]["verbatim"] - shares["unseen"]["verbatim"] if trained and unseen else None
    )
    return {
        **shares,
        "difference": more,
        "tokens": settings.tokens,
        "canaries": read_json(job.folder / "canaries.json"),
    }


def _share(found: Sequence[Memorised], tokens: int) -> dict[str, Any]:
    """Of how many rows `tokens` tokens or more came back, and how many did at the median."""
    if not found:
        return {"rows": 0, "verbatim": None, "longest": None}
    return {
        "rows": len(found),
        "verbatim": sum(one.same >= tokens for one in found) / len(found),
        "longest": median(one.same for one in found),
    }
