"""Which confidence filters a config turns on."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.data import prompts
from pipeline.data.prompts import prompt_files
from pipeline.errors import PipelineError
from pipeline.execution import fingerprint
from pipeline.filters.confidence import contextual_calibration, label_calibration, logprobs
from pipeline.filters.confidence.logprobs import CERTAINTY
from pipeline.filters.measure_cache import worker_count
from pipeline.filters.measures import SAMPLE_IDS, Measure
from pipeline.filters.named_filter import NamedFilter, Outcome
from pipeline.filters.verdict import Verdict
from pipeline.models import resolve
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Seed
from pipeline.storage import soft_labels
from pipeline.storage.files import read_json

NAMES_TOKENIZER = ("backend", "model", "revision", "tokenizer")


def _write_soft_labels(config: Config, outcome: Outcome) -> dict[str, Any]:
    """Write the kept rows' soft labels, calibrated over all rows that reached the filter.

    Returns the shares of right answers before and after, where ground truth is known.
    """
    measured = outcome.measured
    ids, labels = _label_tokens(config), {"labels": config.task.labels}
    distribution, places = (
        Measure(label_calibration.label_distribution, {"labels": ids}),
        Measure(label_calibration.label_places, {"labels": ids}),
    )
    written, truth = (
        Measure(label_calibration.written_label, labels),
        Measure(label_calibration.true_label, labels),
    )
    measured.fill([distribution, places, written, truth], worker_count(config.filter))
    p, at, said, true = (
        np.asarray(measured.column(measure))[outcome.reached]
        for measure in (distribution, places, written, truth)
    )
    known = _known(config, ids)
    firsts, logprobs = label_calibration.soft_labels(p, ids, known)
    kept = np.searchsorted(outcome.reached, outcome.kept)
    all_ids: Any = measured.column(SAMPLE_IDS)
    kept_ids = [all_ids[row] for row in outcome.kept.tolist()]
    soft_labels.write(outcome.kept_folder, firsts, kept_ids, at[kept], logprobs[kept])
    effect = label_calibration.effect(p, said, true, known)
    return vars(effect) if effect else {}


def filters(config: Config) -> Iterator[NamedFilter]:
    """How sure the teacher was, by its logprobs."""
    settings, labels = config.filter, config.task.labels
    if settings.confidence:
        yield NamedFilter(
            "confidence",
            (CERTAINTY,),
            partial(logprobs.confident, bounds=logprobs.bounds(settings.confidence)),
        )
    if settings.calibrated:
        assert labels is not None  # Config sees to it
        _check_teacher(config)
        ids = _label_tokens(config)
        how = partial(
            label_calibration.calibrated,
            labels=labels,
            min_confidence=settings.calibrated.min_confidence,
            agree=settings.calibrated.agree,
        )
        measures = (
            Measure(label_calibration.label_distribution, {"labels": ids}),
            Measure(label_calibration.written_label, {"labels": labels}),
        )

        def calibrated(left: NDArray[np.int64], *columns: Any) -> dict[int, Verdict]:
            return how(left, *columns, known=_known(config, ids))

        yield NamedFilter(
            "calibrated",
            measures,
            calibrated,
            after=lambda outcome: {"calibration": _write_soft_labels(config, outcome)},
        )


def check(config: Config, seeds: Sequence[Seed]) -> None:
    """Raise PipelineError if a content-free text cannot stand for the inputs of a seed."""
    if config.filter.calibrated and config.filter.calibrated.content_free:
        contextual_calibration.check(prompts.load(config.generate.prompt[0]), seeds)


def identities(config: Config) -> dict[str, str]:
    """Return what tells the tokenizer of the labels from others of the same name."""
    if not config.filter.calibrated:
        return {}
    tokenizer = resolve.tokenizer_path(config.teacher)
    return {"labels' tokenizer": resolve.identity(tokenizer, config.teacher.revision)}


def _describe_effect(note: Mapping[str, Any]) -> str:
    return (
        f"right, of {note['rows']:,} labels with ground truth: text {note['text']:.3f}, "
        f"most likely label {note['raw']:.3f}, most likely calibrated label {note['calibrated']:.3f}"
    )


def _check_teacher(config: Config) -> None:
    """Raise PipelineError if the teacher is not the one that wrote the samples: the tokens of its labels, and what it says to inputs
    without content, would not be those of the samples."""
    generated = Path(config.run_dir) / "generate"
    if not (generated / "manifest.json").exists():
        return
    assert config.filter.calibrated is not None
    counts = (
        ["teacher"]
        if config.filter.calibrated.content_free
        else [f"teacher.{name}" for name in NAMES_TOKENIZER]
    )
    mine = fingerprint.settings(config, *counts) | {
        f"model {name}": found for name, found in resolve.identities(config.teacher).items()
    }
    begun = read_json(generated / "begun.json")["fingerprint"]
    if changed := fingerprint.differing({name: begun.get(name, "(absent)") for name in mine}, mine):
        raise PipelineError(
            "filter.calibrated: the teacher is not the one that wrote the samples; put it back, or make generate again with --redo\n"
            + "\n".join(changed)
        )


def _known(config: Config, labels: list[list[int]]) -> label_calibration.Known:
    """What filter.calibrated has to go by. Asks the teacher about inputs without content if that has not been done."""
    calibrated = config.filter.calibrated
    assert calibrated is not None
    return label_calibration.Known(
        calibrated.shares,
        contextual_calibration.distributions(config, labels) if calibrated.content_free else None,
    )


def _label_tokens(config: Config) -> list[list[int]]:
    """By which tokens the labels are told apart, spelled behind what the teacher has in front of its answer."""
    tokenizer = Tokenizer(resolve.tokenizer_path(config.teacher), config.teacher.revision)
    front = prompts.load(prompt_files(config)[0]).front
    return label_calibration.label_tokens(tokenizer, config.task.labels or [], front.answer.start)


NOTES = {"calibration": _describe_effect}
