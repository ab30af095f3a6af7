"""Measures how sure the teacher is of its own text, compared with how often its answers are right.

    .venv/bin/python benchmarks/confidence.py RUN

RUN is a run folder whose generate stage is finished with logprobs. Prints the spread of the stored
probabilities of the written tokens. For examples with ground truth it also prints the share of
right answers among those with a similar probability, the product over the answer's tokens.
"""

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.storage.files import read_json
from pipeline.storage.samples import Samples
from pipeline.storage.topk import TopKFolder
from pipeline.verifiers import verify

BINS = (0.0, 0.5, 0.7, 0.9, 0.97, 0.99, 1.0)


def report(run_dir: Path) -> list[str]:
    """Return the lines to print."""
    task = Config.model_validate(read_json(run_dir / "generate" / "begun.json")["config"]).task
    check = verify.load_check(task)
    samples = Samples(run_dir / "generate")
    frames = TopKFolder(run_dir / "generate")
    token_probabilities = []
    answer_probabilities = []
    scores = []
    for sample in samples.take(0, len(samples)):
        probabilities = np.exp(frames.topk_of(sample).logprobs[:, 0])  # (T,)
        token_probabilities.append(probabilities)
        if sample.seed.target is not None and sample.answer_tokens:
            answer_probabilities.append(probabilities[slice(*sample.answer_tokens)].prod())
            scores.append(verify.score(check, sample.answer, str(sample.seed.target)).value)
    tokens = np.concatenate(token_probabilities)
    lines = [
        f"tokens written: {len(tokens):,}, below probability 0.9: {(tokens < 0.9).mean():.1%}, "
        f"below 0.99: {(tokens < 0.99).mean():.1%}; "
        f"mean surprise {-np.log(tokens).mean():.3f} nat"
    ]
    if scores:
        lines += calibration(np.array(answer_probabilities), np.array(scores))
    return lines


def calibration(
    sure: NDArray[np.float64], right: NDArray[np.float64], bins: Sequence[float] = BINS
) -> list[str]:
    """Return the share of right answers (N,) by bins of their probability (N,), as lines."""
    lines = [
        f"answers: {len(sure):,}, mean probability {sure.mean():.3f}, right {right.mean():.3f}"
    ]
    for low, high in pairwise(bins):
        inside = (sure >= low) & ((sure < high) | (high == bins[-1]))
        if inside.any():
            lines.append(
                f"  {low:.2f} to {high:.2f}: {inside.sum():>5,} answers, "
                f"sure {sure[inside].mean():.3f}, right {right[inside].mean():.3f}"
            )
    return lines


if __name__ == "__main__":
    print("\n".join(report(Path(sys.argv[1]))))
