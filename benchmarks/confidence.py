"""How sure the teacher is of what it wrote, and whether rightly so: what its distributions can teach beyond its text.

    .venv/bin/python benchmarks/confidence.py RUN

RUN is a run folder whose generate stage is finished with logprobs. Prints how the stored probabilities of the written tokens are spread,
and, where seeds have ground truth, how many answers are right among those that it is so sure of (the product over an answer's tokens).
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
    """The lines to be printed."""
    task = Config.model_validate(read_json(run_dir / "generate" / "begun.json")["config"]).task
    samples = (rows := Samples(run_dir / "generate")).take(0, len(rows))
    frames = TopKFolder(run_dir / "generate")
    written = [np.exp(frames.topk_of(sample).logprobs[:, 0]) for sample in samples]  # (T,) each
    every = np.concatenate(written)
    lines = [
        f"tokens written: {len(every):,}, below probability 0.9: {(every < 0.9).mean():.1%}, below 0.99: {(every < 0.99).mean():.1%}; "
        f"mean surprise {-np.log(every).mean():.3f} nat"
    ]
    judged = [
        (s, p)
        for s, p in zip(samples, written, strict=True)
        if s.seed.target is not None and s.answer_tokens
    ]
    if judged:
        sure = np.array(
            [
                probability[slice(*(sample.answer_tokens or (0, 0)))].prod()
                for sample, probability in judged
            ]
        )
        how = verify.load_check(task)
        right = np.array(
            [
                verify.score(how, sample.answer, str(sample.seed.target)).value
                for sample, _ in judged
            ]
        )
        lines += calibration(sure, right)
    return lines


def calibration(
    sure: NDArray[np.float64], right: NDArray[np.float64], bins: Sequence[float] = BINS
) -> list[str]:
    """(N,) probabilities of answers and whether they are right: both, by bins of probability."""
    lines = [
        f"answers: {len(sure):,}, mean probability {sure.mean():.3f}, right {right.mean():.3f}"
    ]
    for low, high in pairwise(bins):
        inside = (sure >= low) & ((sure < high) | (high == bins[-1]))
        if inside.any():
            lines.append(
                f"  {low:.2f} to {high:.2f}: {inside.sum():>5,} answers, sure {sure[inside].mean():.3f}, right {right[inside].mean():.3f}"
            )
    return lines


if __name__ == "__main__":
    print("\n".join(report(Path(sys.argv[1]))))
