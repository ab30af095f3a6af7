"""The evaluate stage: teacher, base student and every arm answer the held-out examples, greedily.

All of them take the same path. Beside its answers, each part has cost.json: size, speed, load.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Config, Load
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
from pipeline.storage.files import read_object, sha256, write_json
from pipeline.storage.journal import Shard
from pipeline.storage.shards import read_records
from pipeline.students import source as student_source
from pipeline.verifiers import verify
from pipeline.verifiers.verify import CheckSettings

log = logging.getLogger(__name__)

NAME = "evaluate"
NOTES = frozenset({"cost.json"})
DISPOSABLE = frozenset({"cost.json"})
SHARED = False
SHARD_SIZE = 512
TEACHER_KEYS = ("backend", "model", "revision", "tokenizer", "replies", "engine")


def parts(config: Config) -> list[str]:
    return [TEACHER, BASE, *config.train.arms]


def sections(config: Config, part: str) -> list[str]:
    task = ["task.eval_seeds", "task.metric", "task.labels", "task.verifier", "evaluate.max_tokens"]
    if part != TEACHER:
        return [*task, "evaluate.backend", "evaluate.engine", f"train.arms.{part}.form"]
    fidelity_too = ["evaluate.fidelity"] if config.evaluate.fidelity else []
    return [*task, *fidelity_too, *(f"teacher.{name}" for name in TEACHER_KEYS)]


def reads(config: Config, part: str) -> list[str]:
    return [] if part == TEACHER else [trained(part)]


def files(config: Config, part: str) -> list[Path]:
    held_out = seeds.files(config.task.eval_seeds)
    return [*held_out, Path(_prompt_path(config, part)), *verify.files(config.task)]


def identities(config: Config, part: str) -> Mapping[str, str]:
    identities = seeds.identities(config.task.eval_seeds)
    if part == BASE:
        identities |= student_source.identities(config)
    if part == TEACHER and config.teacher.backend == "vllm":
        identities["teacher"] = resolve.identity(config.teacher.model, config.teacher.revision)
    return identities


def run(job: Job) -> dict[str, Any]:
    """Ask one model all held-out examples that it has not answered, and score the answers."""
    config = job.config
    _check_as_trained(job)
    student_prompt = prompts.load(config.train.prompt)
    held_out = seeds.load_eval(
        seeds.load(config.task.seeds),
        config.task.eval_seeds,
        lambda seed: str(student_prompt.render(seed)),
    )
    prompts.check(_prompt(config, job.part), held_out)
    by_id = {digest(job.part, seed.id): seed for seed in held_out}
    shards = claim_all(job.folder, list(by_id), Scored, SHARD_SIZE)
    done = len(by_id) - sum(len(shard.missing) for shard in shards)
    if not (job.folder / "cost.json").exists():
        _write_cost(job, None, None)
    if done < len(by_id) or _missing_load(job):
        log.info(f"evaluate {job.part}: {done:,} of {len(by_id):,} answers done; loading the model")
        model = _open(job)
        try:
            if done < len(by_id):
                _ask(job, model, by_id, shards, done)
            if load := _missing_load(job):  # also if the answers have just replaced cost.json
                _measure_load(job, model, by_id, load)
        finally:
            model.close()
    return {"answers": sum(1 for _ in read_records(job.folder, Scored))}


def reopen(job: Job) -> None:
    """Let a finished part run again if the load of evaluate.load was not measured."""
    if job.manifest.exists() and _missing_load(job):
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
    rows = table.table(figures, config.train.model_dump())
    return "\n".join([rows, *optional_figures.lines(figures), str(path)])


def _results_path(config: Config) -> Path:
    return Path(config.run_dir) / NAME / "results.json"


def _prompt_path(config: Config, part: str) -> str:
    return config.generate.prompt[0] if part == TEACHER else config.train.prompt


def _prompt(config: Config, part: str) -> Prompt:
    """Return the teacher's prompt, or the students' prompt in the form that one was trained for."""
    arm = config.train.arms.get(part)
    return prompts.load(_prompt_path(config, part)).in_form(arm.form if arm else "whole")


def _check_as_trained(job: Job) -> None:
    """Raise PipelineError if an arm was trained with another form or prompt than it now has."""
    arm = job.config.train.arms.get(job.part)
    if arm is None:
        return
    training = begun(job.run_dir, trained(job.part))
    path = Path(job.config.train.prompt)
    form = read_object(training, "config")["config"]["train"]["arms"][job.part]["form"]
    if form != arm.form:
        raise PipelineError(
            f"evaluate {job.part}: was trained with form: {form}, and the config now has "
            f"{arm.form}; put it back, or train the arm again"
        )
    if input_digest(training, path) != sha256(path):
        raise PipelineError(
            f"evaluate {job.part}: was trained with another prompt than {path} now holds; "
            "put it back, or train the arm again"
        )


def _open(job: Job) -> Model:
    config = job.config
    if job.part == TEACHER:
        teacher = config.teacher.model_copy(update={"logprobs": _logprobs(config, TEACHER)})
        return open_teacher(teacher, job.engine_log)
    path, revision = _student(job)
    replies = config.teacher.replies or []
    return open_student(config.evaluate, path, revision, replies, job.engine_log)


def _student(job: Job) -> tuple[str, str | None]:
    """Return (folder or hub id, revision) of the student of this part."""
    return student_source.saved_model(trained_model(job.run_dir, job.part))


def _ask(
    job: Job,
    model: Model,
    by_id: Mapping[str, Seed],
    shards: Sequence[Shard[Scored]],
    done: int,
) -> None:
    """Ask the missing questions and store the scored answers; `done` answers are stored already."""
    sampling = Sampling(job.config.evaluate.max_tokens, logprobs=_logprobs(job.config, job.part))
    examiner = _examiner(job, model, by_id, _header(job, model))
    if examiner.header:
        for shard in shards:
            shard.recover(shard.order, examiner.header.to_bytes())
    progress = Progress(f"evaluate {job.part}", len(by_id), done, unit="answers")
    started = time.monotonic()
    Collector(examiner.question, unexpected_failure, progress).run(
        lambda requests: model.generate(requests, sampling), shards
    )
    seconds = time.monotonic() - started
    # after a resume only few requests may remain, so start-up would make the speed look low
    rates = None if done else (progress.tokens / seconds, len(by_id) / seconds)
    _write_cost(job, model.facts.engine, rates)


def _logprobs(config: Config, part: str) -> int:
    """Return k of the top-k logprobs that a model is asked for.

    The teacher is asked for what fidelity needs, other models for the written token's logprob. A
    server is asked for none unless the config says that it gives some.
    """
    teacher = config.teacher
    if part != TEACHER:
        return 1
    if config.evaluate.fidelity:
        return config.evaluate.fidelity.logprobs
    if teacher.backend != "openai":
        return 1
    return int(teacher.tokenizer is not None and teacher.logprobs > 0)


def _header(job: Job, model: Model) -> topk.Header | None:
    """Return the header of the teacher's frames, if fidelity needs them.

    They hold the whole top k without draws: the figures measured on them are not linear in them.
    """
    settings = job.config.evaluate.fidelity
    if job.part != TEACHER or settings is None:
        return None
    return teacher_samples.header(job, model, settings.logprobs, mass=1.0, threshold=0.0)


def _missing_load(job: Job) -> Load | None:
    """Return the load of the config if latency and speed at it are still to be measured."""
    load = job.config.evaluate.load
    if load is None:
        return None
    measured = read_object(job.folder / "cost.json").get("load") or {}
    same = (load.requests, load.concurrency) == (measured.get("asked"), measured.get("concurrency"))
    return None if same else load


def _measure_load(job: Job, model: Model, by_id: Mapping[str, Seed], load: Load) -> None:
    examiner = _examiner(job, model, by_id, None)
    requests = [examiner.question(name).request for name in islice(by_id, load.requests + 1)]
    log.info(f"evaluate {job.part}: latency and speed, {load.concurrency} requests at once")
    figures = latency.measure(model, requests, job.config.evaluate.max_tokens, load.concurrency)
    measured = {"asked": load.requests, **figures.model_dump(exclude_unset=True)}
    cost = read_object(job.folder / "cost.json")
    write_json(job.folder / "cost.json", {**cost, "engine": model.facts.engine, "load": measured})


def _write_cost(job: Job, engine: str | None, rates: tuple[float, float] | None) -> None:
    """Write the model's size, and its (tokens/s, answers/s) if they were measured."""
    config = job.config
    if job.part == TEACHER:
        backend: str = config.teacher.backend
        name, revision = config.teacher.model, config.teacher.revision
    else:
        backend = config.evaluate.backend
        name, revision = _student(job)
    size = size_of(resolve.model_path(name), revision) if backend == "vllm" else None
    cost = {
        "engine": engine or backend,
        "tokens_per_s": round(rates[0], 1) if rates else None,
        "answers_per_s": round(rates[1], 2) if rates else None,
        "parameters": size.parameters if size else None,
        "nbytes": size.nbytes if size else None,
    }
    write_json(job.folder / "cost.json", cost)


def _examiner(
    job: Job, model: Model, by_id: Mapping[str, Seed], header: topk.Header | None
) -> "_Examiner":
    check = verify.load_check(job.config.task)
    return _Examiner(job.part, model, _prompt(job.config, job.part), by_id, check, header)


@dataclass(frozen=True)
class _Examiner:
    """Puts the questions to one model, and scores its answers."""

    part: str
    model: Model
    prompt: Prompt
    by_id: Mapping[str, Seed]
    check: CheckSettings
    header: topk.Header | None  # of the frames, if they are stored

    def question(self, identifier: str) -> Question[Scored]:
        seed, tokenizer = self.by_id[identifier], self.model.tokenizer
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
            model=self.part,
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
                f"evaluate {self.part}: its server gives no logprobs, "
                "which evaluate.fidelity needs; leave that out"
            )
        ids, logprobs = completion.topk.ids, completion.topk.logprobs
        tails = [float(f"{mass:.3g}") for mass in topk.tail_mass(ids, logprobs)]
        scored = scored.model_copy(update={"token_ids": completion.token_ids, "tails": tails})
        return scored, topk.encode(ids, logprobs, self.header, 0)


def _confidence(completion: Completion, tokens: Range | None) -> float | None:
    """Return the joint probability of the answer's tokens; None where it is not known."""
    if completion.topk is None or tokens is None or tokens[0] == tokens[1]:
        return None
    logprobs = completion.topk.logprobs[slice(*tokens), 0].astype(np.float64)
    return min(1.0, float(np.exp(logprobs.sum())))
