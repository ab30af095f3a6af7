"""Which confidence filters a config turns on."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.config.filter import Calibrated
from pipeline.data import prompts
from pipeline.data.prompts import prompt_files
from pipeline.errors import PipelineError
from pipeline.execution import fingerprint
from pipeline.filters.confidence import (
    calibration_effect,
    contextual_calibration,
    label_calibration,
    logprobs,
)
from pipeline.filters.confidence.logprobs import CERTAINTY
from pipeline.filters.measure_cache import worker_count
from pipeline.filters.measures import SAMPLE_IDS, Measure
from pipeline.filters.named_filter import NamedFilter, Outcome
from pipeline.filters.verdict import Verdict
from pipeline.models import resolve
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Seed
from pipeline.storage import soft_labels
from pipeline.storage.files import read_object

log = logging.getLogger(__name__)

TOKENIZER_SETTINGS = ("backend", "model", "revision", "tokenizer")


def filters(config: Config) -> Iterator[NamedFilter]:
    """Yield the filters on how sure the teacher was, by its logprobs."""
    settings = config.filter
    if settings.confidence:
        confident = partial(logprobs.reject_uncertain, bounds=settings.confidence)
        yield NamedFilter("confidence", (CERTAINTY,), confident)
    if settings.calibrated:
        _check_teacher(settings.calibrated, config)
        yield _calibrated(settings.calibrated, config, _label_tokens(config))
    elif _learns_labels(config):
        try:
            tokens = _label_tokens(config)
        except PipelineError as error:
            log.info(f"filter: no soft labels for the kd arms: {error}")
        else:
            filter_ = _calibrated(Calibrated(agree=False), config, tokens)
            yield replace(filter_, judge=lambda rows, *columns: {})


def _learns_labels(config: Config) -> bool:
    """Return True if a kd arm may learn soft labels.

    They are then written for it, without rejecting anything.
    """
    arms = config.train.arms.values()
    wanted = any(arm.method == "kd" and arm.soft_labels is not False for arm in arms)
    return wanted and bool(config.task.labels) and config.train.rows == "filter"


def _calibrated(settings: Calibrated, config: Config, tokens: list[list[int]]) -> NamedFilter:
    """Return the filter; `tokens` are those that distinguish the labels."""
    labels = config.task.labels
    assert labels is not None  # a rule of the config

    def judge(rows: NDArray[np.int64], *columns: Any) -> dict[int, Verdict]:
        return label_calibration.reject_unlikely_labels(
            rows,
            *columns,
            labels=labels,
            min_confidence=settings.min_confidence,
            agree=settings.agree,
            prior=_prior(settings, config, tokens),
        )

    def after(outcome: Outcome) -> dict[str, Any]:
        return {"calibration": _write_soft_labels(settings, config, tokens, outcome)}

    measures = (
        Measure(label_calibration.label_distribution, {"labels": tokens}),
        Measure(label_calibration.written_label, {"labels": labels}),
    )
    return NamedFilter("calibrated", measures, judge, after=after)


def _write_soft_labels(
    settings: Calibrated, config: Config, tokens: list[list[int]], outcome: Outcome
) -> dict[str, Any]:
    """Write the kept rows' soft labels, calibrated over all rows that reached the filter.

    Returns what calibration changes, and where ground truth is known the shares of right answers
    before and after.
    """
    by_token = {"labels": tokens}
    by_name = {"labels": config.task.labels}
    measures = (
        Measure(label_calibration.label_distribution, by_token),
        Measure(label_calibration.label_places, by_token),
        Measure(label_calibration.written_label, by_name),
        Measure(label_calibration.true_label, by_name),
    )
    measured = outcome.measured
    measured.fill(measures, worker_count(config.filter))
    p, places, written, truth = (
        np.asarray(measured.column(measure))[outcome.reached] for measure in measures
    )
    prior = _prior(settings, config, tokens)
    first_tokens, logprobs = label_calibration.soft_labels(p, tokens, prior)
    kept = np.searchsorted(outcome.reached, outcome.kept)
    all_ids: Any = measured.column(SAMPLE_IDS)
    kept_ids = [all_ids[row] for row in outcome.kept.tolist()]
    soft_labels.write(outcome.kept_folder, first_tokens, kept_ids, places[kept], logprobs[kept])
    effect = calibration_effect.measure_effect(p, written, truth, prior)
    bias = calibration_effect.measure_bias(p, written, prior)
    return vars(bias) | (vars(effect) if effect else {})


def check(config: Config, seeds: Sequence[Seed]) -> None:
    """Raise PipelineError if a content-free text cannot replace the inputs of an example."""
    if config.filter.calibrated and config.filter.calibrated.content_free:
        contextual_calibration.check(prompts.load(config.generate.prompt[0]), seeds)


def identities(config: Config) -> dict[str, str]:
    """Return the identity of the tokenizer that splits the labels, for fingerprints."""
    if not config.filter.calibrated:
        return {}
    tokenizer = resolve.tokenizer_path(config.teacher)
    return {"labels' tokenizer": resolve.identity(tokenizer, config.teacher.revision)}


def _describe_effect(note: Mapping[str, Any]) -> str:
    """Describe the note; older runs have no `changed`."""
    bias = f"calibration changes {note.get('changed', 0.0):.1%} of the labels"
    if note.get("is_strong"):
        bias += ", so kd arms learn soft labels: the prompt favours some labels"
    if "rows" not in note:
        return bias
    return (
        f"{bias}; right, of {note['rows']:,} labels with ground truth: text {note['text']:.3f}, "
        f"most likely label {note['raw']:.3f}, "
        f"most likely calibrated label {note['calibrated']:.3f}"
    )


def _check_teacher(settings: Calibrated, config: Config) -> None:
    """Raise PipelineError if the configured teacher is not the one that wrote the samples.

    Label tokens and answers to content-free texts would come from another model.
    """
    generated = Path(config.run_dir) / "generate"
    if not (generated / "manifest.json").exists():
        return
    sections = ["teacher"]
    if not settings.content_free:
        sections = [f"teacher.{name}" for name in TOKENIZER_SETTINGS]
    now = fingerprint.settings(config, *sections)
    for name, identity in resolve.identities(config.teacher).items():
        now[f"model {name}"] = identity
    started = read_object(generated / "begun.json", "fingerprint")["fingerprint"]
    then = {name: started.get(name, "(absent)") for name in now}
    if changed := fingerprint.differing(then, now):
        raise PipelineError(
            "filter.calibrated: the teacher is not the one that wrote the samples; "
            "restore its settings, or generate again with --redo\n" + "\n".join(changed)
        )


def _prior(
    settings: Calibrated, config: Config, labels: list[list[int]]
) -> label_calibration.Prior:
    """Return the prior for calibration; with content_free, ask the teacher once."""
    content_free = None
    if settings.content_free:
        content_free = contextual_calibration.distributions(config, settings.content_free, labels)
    return label_calibration.Prior(settings.shares, content_free)


def _label_tokens(config: Config) -> list[list[int]]:
    """Return the tokens that distinguish the labels after the answer's start marker."""
    tokenizer = Tokenizer(resolve.tokenizer_path(config.teacher), config.teacher.revision)
    front = prompts.load(prompt_files(config)[0]).front
    return label_calibration.label_tokens(tokenizer, config.task.labels or [], front.answer.start)


NOTES = {"calibration": _describe_effect}
