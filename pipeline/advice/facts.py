"""Read from a run folder what the advice rests on. A figure that is not known is None."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.evaluation.bootstrap import Interval, bootstrap
from pipeline.evaluation.results_model import Results
from pipeline.evaluation.small_samples import UNIT
from pipeline.inspection import run_folder
from pipeline.inspection.run_folder import Run
from pipeline.records import Sample
from pipeline.storage.samples import Samples
from pipeline.storage.topk import TopKFolder
from pipeline.verifiers import verify
from pipeline.verifiers.scorers import normalise

MOST = 2000  # kept samples that are read, spread evenly over all


@dataclass(frozen=True)
class Facts:
    """What is known of a run.

    Attributes:
        rows: kept samples.
        accuracy: the teacher's score on kept samples with ground truth.
        surprise: nats/token of the teacher at its own kept text.
        reply_tokens: mean length of a reply.
        labels: how many of the samples read have each answer; empty unless the metric is label.
        bias: share of the labels that calibration would change; 0 if its probabilities hardly tell
            the inputs apart.
        cut: share of the student's layers that were removed.
        healed: the cut student was trained to recover before the arms.
        steps: optimiser steps of each trained arm.
        results: figures of the evaluation.
        falling: arms whose validation loss was lowest at the last evaluation.
    """

    config: Config
    rows: int
    accuracy: Interval | None = None
    surprise: float | None = None
    reply_tokens: float = 0.0
    labels: Mapping[str, int] = field(default_factory=dict)
    bias: float | None = None
    cut: float = 0.0
    healed: bool = False
    steps: Mapping[str, int] = field(default_factory=dict)
    results: Results | None = None
    falling: tuple[str, ...] = ()


def read(run_dir: Path) -> Facts:
    """Return the facts of a run whose filter is finished. Raises PipelineError if it is not."""
    if not (run_dir / "filter" / "manifest.json").is_file():
        raise PipelineError(
            f"{run_dir}: there is nothing to advise on before filter is finished; "
            "run pipeline filter first"
        )
    run = run_folder.read(run_dir)
    config = Config.model_validate(run.config)
    kept = Samples(run_dir / "filter" / "kept")
    numbers = np.unique(np.linspace(0, len(kept) - 1, min(MOST, len(kept))).round().astype(int))
    samples = [kept[number] for number in numbers.tolist()]
    answers = [sample.answer for sample in samples if sample.answer is not None]
    is_labels = config.task.metric == "label"
    results = run_dir / "evaluate" / "results.json"
    return Facts(
        config=config,
        rows=len(kept),
        accuracy=_accuracy(config, samples),
        surprise=_surprise(run_dir / "generate", samples),
        reply_tokens=float(np.mean([sample.usage.completion_tokens for sample in samples])),
        labels=Counter(map(normalise, answers)) if is_labels else {},
        bias=_bias(run),
        cut=_cut(config),
        healed=config.student.heal is not None,
        steps=_steps(run),
        results=Results.read(results) if results.is_file() else None,
        falling=tuple(arm for arm in config.train.arms if _is_falling(run_dir / "train" / arm)),
    )


def _bias(run: Run) -> float | None:
    note = run.counts("filter").get("calibration", {})
    if "changed" not in note:
        return None
    return float(note["changed"]) if note["is_strong"] else 0.0


def _accuracy(config: Config, samples: list[Sample]) -> Interval | None:
    """Return the score of the answers whose seed has ground truth; None without any."""
    check = verify.load_check(config.task)
    scores = [
        verify.score(check, sample.answer, str(sample.seed.target)).value
        for sample in samples
        if sample.seed.target is not None
    ]
    return bootstrap(scores, scale=UNIT) if scores else None


def _surprise(folder: Path, samples: list[Sample]) -> float | None:
    """Return the mean surprise in nats per token; None without logprobs."""
    frames = TopKFolder(folder)
    written = [frames.topk_of(sample).logprobs[:, 0] for sample in samples if sample.frame]
    return -float(np.concatenate(written).mean()) if written else None


def _cut(config: Config) -> float:
    """Return the share of the layers that the student lacks of the model it was cut from."""
    student = config.student
    kept = student.layers if student.keep_layers is None else len(student.keep_layers)
    if kept is None:
        return 0.0
    from pipeline.models.resolve import model_path
    from pipeline.models.weights import load_config
    from pipeline.students.source import source

    name, revision = source(config)
    total = load_config(model_path(name), revision).get_text_config().num_hidden_layers
    return 1.0 - kept / int(total)


def _steps(run: Run) -> dict[str, int]:
    """Return the optimiser steps of the arms that are trained."""
    counts = {arm: run.counts(f"train/{arm}") for arm in run.config["train"]["arms"]}
    return {arm: int(found["steps"]) for arm, found in counts.items() if found}


def _is_falling(folder: Path) -> bool:
    """Return True if an arm's validation loss was still falling when training ended."""
    entries = run_folder.history(folder)
    losses = [entry["eval_loss"] for entry in entries if entry.get("eval_loss") is not None]
    return len(losses) > 1 and min(losses) == losses[-1]
