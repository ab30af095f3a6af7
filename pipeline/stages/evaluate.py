"""evaluate: teacher, untouched student and every arm on the same held-out seeds, by the same path, greedy."""

import dataclasses
import logging
import time
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Config
from pipeline.data import prompts, replies, seeds
from pipeline.data.prompts import Prompt
from pipeline.errors import PipelineError
from pipeline.evaluation import fidelity, gate, latency, optional_figures, results, table
from pipeline.evaluation.results_model import Results
from pipeline.execution.contract import Job
from pipeline.execution.fingerprint import input_digest
from pipeline.execution.paths import BASE, TEACHER, begun, trained, trained_model
from pipeline.execution.progress import Progress
from pipeline.inference import teacher_samples
from pipeline.inference.collector import Collector, Question, claim_all, unexpected_failure
from pipeline.models import resolve
from pipeline.models.backends import open_student, open_teacher
from pipeline.models.base import Completion, Model, Request, Sampling
from pipeline.models.weights import size_of
from pipeline.records import Range, Scored, Seed, digest
from pipeline.storage import topk
from pipeline.storage.files import read_json, sha256, write_json
from pipeline.storage.shards import read_records
from pipeline.students import source as student_source
from pipeline.verifiers import verify
from pipeline.verifiers.verify import Check

log = logging.getLogger(__name__)

NAME = "evaluate"
NOTES = frozenset({"cost.json"})
DISPOSABLE = frozenset({"cost.json"})
SHARED = False
SHARD_SIZE = 512


def parts(config: Config) -> list[str]:
    return [TEACHER, BASE, *config.train.arms]


def sections(config: Config, part: str) -> list[str]:
    task = ["task.eval_seeds", "task.metric", "task.labels", "task.verifier", "evaluate.max_tokens"]
    if part == TEACHER:
        task += ["evaluate.fidelity"] if config.evaluate.fidelity else []
        return [
            *task,
            *(
                f"teacher.{name}"
                for name in ("backend", "model", "revision", "tokenizer", "replies", "engine")
            ),
        ]
    return [*task, "evaluate.backend", "evaluate.engine", f"train.arms.{part}.form"]


def reads(config: Config, part: str) -> list[str]:
    return [] if part == TEACHER else [trained(part)]


def files(config: Config, part: str) -> list[Path]:
    source = [Path(config.task.eval_seeds.path)] if config.task.eval_seeds.path else []
    return [*source, Path(_prompt_path(config, part)), *verify.files(config.task)]


def identities(config: Config, part: str) -> Mapping[str, str]:
    found = seeds.identities(config.task.eval_seeds)
    if part == BASE:
        found |= student_source.identities(config)
    if part == TEACHER and config.teacher.backend == "vllm":
        found["teacher"] = resolve.identity(config.teacher.model, config.teacher.revision)
    return found


def run(job: Job) -> dict[str, Any]:
    """Ask one model every held-out seed that it has not answered, and score the answers."""
    config = job.config
    _check_as_trained(job)
    seen = prompts.load(config.train.prompt)
    held_out = seeds.load_eval(
        seeds.load(config.task.seeds), config.task.eval_seeds, lambda seed: str(seen.render(seed))
    )
    prompts.check(_prompt(config, job.part), held_out)
    wanted = {digest(job.part, seed.id): seed for seed in held_out}
    shards = claim_all(job.folder, list(wanted), Scored, SHARD_SIZE)
    there = len(wanted) - sum(len(shard.missing) for shard in shards)
    if not (job.folder / "cost.json").exists():
        _write_cost(job, None, None)
    if there < len(wanted) or _lacks_load(job):
        log.info(
            f"evaluate {job.part}: {there:,} of {len(wanted):,} answers are there; loading the model"
        )
        model = _open(job)
        try:
            if there < len(wanted):
                _ask(job, model, wanted, shards, there)
            if _lacks_load(job):
                _measure_load(job, model, wanted)
        finally:
            model.close()
    return {"answers": sum(1 for _ in read_records(job.folder, Scored))}


def reopen(job: Job) -> None:
    """Have a finished part run again if the load is to be measured and was not, or was another."""
    if job.manifest.exists() and _lacks_load(job):
        job.manifest.unlink()


def finish(config: Config) -> None:
    """Write results.json from the answers on disk, unless it already holds the same figures.

    Raises PipelineError if the gate needs a figure that was not measured; the others are written.
    """
    names = parts(config)
    measured, readings = results.measured(config, names), fidelity.readings(config, names)
    figures = results.results(config, measured, readings)
    try:
        verdicts = gate.failed(config, figures) if config.evaluate.gate else None
        figures = figures.model_copy(update={"verdicts": verdicts})
    finally:
        figures.write(_results_path(config))


def summary(config: Config) -> str:
    """Return the table of results.json."""
    path = _results_path(config)
    figures = Results.read(path)
    return "\n".join([table.table(figures), *optional_figures.lines(figures), str(path)])


def _results_path(config: Config) -> Path:
    return Path(config.run_dir) / NAME / "results.json"


def _prompt_path(config: Config, part: str) -> str:
    return config.generate.prompt[0] if part == TEACHER else config.train.prompt


def _prompt(config: Config, part: str) -> Prompt:
    """What the model is asked with: the teacher by its own prompt, a student in the form that it was trained for."""
    arm = config.train.arms.get(part)
    return prompts.load(_prompt_path(config, part)).in_form(arm.form if arm else "whole")


def _check_as_trained(job: Job) -> None:
    """A student must be asked as it was taught. Raises PipelineError if its form or its prompt is another than in training."""
    arm = job.config.train.arms.get(job.part)
    if arm is None:
        return
    training = begun(job.run_dir, trained(job.part))
    path = Path(job.config.train.prompt)
    taught = read_json(training)["config"]["train"]["arms"][job.part]["form"]
    if taught != arm.form:
        raise PipelineError(
            f"evaluate {job.part}: was trained with form: {taught}, and is now {arm.form}; put it back, or train it again"
        )
    if input_digest(training, path) != sha256(path):
        raise PipelineError(
            f"evaluate {job.part}: was trained with another prompt than {path} now holds; put it back, or train it again"
        )


def _open(job: Job) -> Model:
    config = job.config
    if job.part == TEACHER:
        return open_teacher(
            config.teacher.model_copy(update={"logprobs": _logprobs(config, TEACHER)}),
            job.engine_log,
        )
    path, revision = _student(job)
    return open_student(
        config.evaluate, path, revision, config.teacher.replies or [], job.engine_log
    )


def _student(job: Job) -> tuple[str, str | None]:
    """(folder or hub id, revision) of the student that this part asks."""
    return student_source.saved_model(trained_model(job.run_dir, job.part))


def _ask(job: Job, model: Model, wanted: Mapping[str, Seed], shards: Any, there: int) -> None:
    sampling = Sampling(job.config.evaluate.max_tokens, logprobs=_logprobs(job.config, job.part))
    examiner = _Examiner(
        job,
        model,
        _prompt(job.config, job.part),
        wanted,
        verify.load_check(job.config.task),
        _header(job, model),
    )
    if examiner.header:
        for shard in shards:
            shard.recover(shard.order, examiner.header.to_bytes())
    progress = Progress(f"evaluate {job.part}", len(wanted), there, unit="answers")
    began = time.monotonic()
    Collector(examiner.question, unexpected_failure, progress).run(
        lambda requests: model.generate(requests, sampling), shards
    )
    seconds = time.monotonic() - began
    _write_cost(
        job,
        model.facts.engine,
        None if there else (progress.tokens / seconds, len(wanted) / seconds),
    )


def _logprobs(config: Config, part: str) -> int:
    """k of the top-k logprobs that this model is asked for: of the teacher what fidelity needs, of others the token's own. None of a server
    that is not known to give them."""
    if part != TEACHER:
        return 1
    if config.evaluate.fidelity:
        return config.evaluate.fidelity.logprobs
    asked = config.teacher.backend != "openai" or (
        config.teacher.tokenizer is not None and config.teacher.logprobs > 0
    )
    return int(asked)


def _header(job: Job, model: Model) -> topk.Header | None:
    """Of the frames that are kept: the teacher's whole top k, no draws, since what is measured on them is not linear in them."""
    if job.part != TEACHER or job.config.evaluate.fidelity is None:
        return None
    return teacher_samples.header(
        job, model, job.config.evaluate.fidelity.logprobs, mass=1.0, threshold=0.0
    )


def _lacks_load(job: Job) -> bool:
    """Whether latency and speed at the load that the config asks for are still to be measured."""
    wanted = job.config.evaluate.load
    found = read_json(job.folder / "cost.json").get("load") or {}
    return wanted is not None and (wanted.requests, wanted.concurrency) != (
        found.get("asked"),
        found.get("concurrency"),
    )


def _measure_load(job: Job, model: Model, wanted: Mapping[str, Seed]) -> None:
    config = job.config
    asked = config.evaluate.load
    assert asked is not None
    examiner = _Examiner(
        job, model, _prompt(config, job.part), wanted, verify.load_check(config.task), None
    )
    requests = [
        examiner.question(identifier).request for identifier in islice(wanted, asked.requests + 1)
    ]
    log.info(f"evaluate {job.part}: latency and speed, {asked.concurrency} requests at once")
    figures = latency.measure(model, requests, config.evaluate.max_tokens, asked.concurrency)
    load = {"asked": asked.requests, **figures.model_dump(exclude_unset=True)}
    cost = read_json(job.folder / "cost.json")
    write_json(job.folder / "cost.json", {**cost, "engine": model.facts.engine, "load": load})


def _write_cost(job: Job, engine: str | None, rates: tuple[float, float] | None) -> None:
    """Sizes, and (tokens/s, answers/s) if all answers were measured in one go; a remainder alone would measure its cold start."""
    config = job.config
    name, revision = (
        (config.teacher.model, config.teacher.revision) if job.part == TEACHER else _student(job)
    )
    backend = config.teacher.backend if job.part == TEACHER else config.evaluate.backend
    size = size_of(resolve.model_path(name), revision) if backend == "vllm" else None
    write_json(
        job.folder / "cost.json",
        {
            "engine": engine or backend,
            "tokens_per_s": round(rates[0], 1) if rates else None,
            "answers_per_s": round(rates[1], 2) if rates else None,
            **(dataclasses.asdict(size) if size else {"parameters": None, "nbytes": None}),
        },
    )


@dataclasses.dataclass(frozen=True)
class _Examiner:
    """Puts the questions to one model, and scores its answers."""

    job: Job
    model: Model
    prompt: Prompt
    wanted: Mapping[str, Seed]
    check: Check
    header: topk.Header | None  # of the frames, if they are kept

    def question(self, identifier: str) -> Question[Scored]:
        seed, tokenizer = self.wanted[identifier], self.model.tokenizer
        rendered = self.prompt.render(seed, tokenizer.control_tokens if tokenizer else ())
        token_ids = tokenizer.encode(rendered) if tokenizer else None
        request = Request(identifier, rendered, token_ids, stop=tuple(self.prompt.front.stop))
        return Question(request, partial(self._scored, seed))

    def _scored(self, seed: Seed, completion: Completion) -> tuple[Scored, bytes | None]:
        reading = replies.read(self.prompt, completion, self.model.tokenizer)
        assert seed.target is not None
        scored = Scored(
            id=completion.id,
            seed_id=seed.id,
            group=seed.group,
            target=seed.target,
            model=self.job.part,
            text=completion.text,
            finish_reason=completion.finish_reason,
            usage=completion.usage,
            score=verify.score(self.check, reading.answer, seed.target),
            confidence=_confidence(completion, reading.answer_tokens),
        )
        if self.header is None:
            return scored, None
        if completion.topk is None:
            raise PipelineError(
                f"evaluate {self.job.part}: its server gives no logprobs, which evaluate.fidelity needs; leave that out"
            )
        ids, logprobs = completion.topk.ids, completion.topk.logprobs
        tails = [float(f"{mass:.3g}") for mass in topk.tail_mass(ids, logprobs)]
        return scored.model_copy(
            update={"token_ids": completion.token_ids, "tails": tails}
        ), topk.encode(ids, logprobs, self.header, 0)


def _confidence(completion: Completion, tokens: Range | None) -> float | None:
    """The probability of the answer's tokens, all together."""
    if completion.topk is None or tokens is None or tokens[0] == tokens[1]:
        return None
    logprobs = completion.topk.logprobs[slice(*tokens), 0].astype(np.float64)
    return min(1.0, float(np.exp(logprobs.sum())))
