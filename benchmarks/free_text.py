"""Fidelity to the teacher where there is no right answer.

    .venv/bin/python benchmarks/free_text.py STUDENT HELD_OUT

STUDENT is a run folder whose evaluate stage is finished, HELD_OUT one whose generate stage is: the teacher's text and logprobs for
held-out seeds. Prints, for the untouched student and every arm (repeats together):

- KL: forward KL of the student from the teacher, nats a token, over the teacher's own held-out text, by the entries and the tail stored;
- chrF (sacrebleu) and ROUGE-L (rouge-score) of the student's greedy answers to the teacher's greedy answers, 0 to 1.

Each with a 95 % bootstrap interval over held-out seeds and repeats, and KD minus SFT, paired by held-out seed.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.fidelity import completion_states
from pipeline import prompts, students
from pipeline.batches import stack
from pipeline.config import Config
from pipeline.evaluation.results import repeats
from pipeline.losses.kd import Objective, distillation_loss
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_weights
from pipeline.records import Sample, Scored
from pipeline.samples import Samples
from pipeline.scoring import Interval, bootstrap_repeats
from pipeline.store import read_json, read_records
from pipeline.topk import TopKFolder

Measures = dict[str, dict[str, float]]  # by measure, by seed


def report(run_dir: Path, held_out: Path) -> list[str]:
    """The lines to be printed."""
    config = evaluated(run_dir)
    arms = config.train.arms
    groups = {"base": ["base"], **repeats(arms)}
    found = {name: measure(config, run_dir, name, held_out) for names in groups.values() for name in names}
    lines = []
    for what in ("KL", "chrF", "ROUGE-L"):
        runs = {group: _matrix([found[name][what] for name in names]) for group, names in groups.items()}
        lines += [f"{what:<8} {group:<16} {_shown(bootstrap_repeats(runs[group]))}" for group in groups]
        for kd in (group for group in runs if group != "base" and arms[groups[group][0]].method == "kd"):
            for sft in (group for group in runs if group != "base" and arms[groups[group][0]].method == "sft"):
                lines.append(f"{what:<8} {f'{kd} - {sft}':<16} {_shown(bootstrap_repeats(runs[kd], runs[sft]))}")
    return lines


def evaluated(run_dir: Path) -> Config:
    """The config of the newest model that was evaluated: it has all arms."""
    newest = max((run_dir / "evaluate").glob("*/begun.json"), key=lambda path: path.stat().st_mtime)
    return Config.model_validate(read_json(newest)["config"])


def measure(config: Config, run_dir: Path, model: str, held_out: Path) -> Measures:
    """Of one student of the run: the untouched one, or an arm."""
    kl = divergences(config, run_dir / "train" / ("init" if model == "base" else model), held_out)
    return {"KL": kl, **overlaps(answers(run_dir, model), answers(run_dir, "teacher"))}


def _matrix(runs: list[dict[str, float]]) -> Any:
    return np.array([[run[seed] for seed in runs[0]] for run in runs])


def _shown(interval: Interval) -> str:
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def answers(run_dir: Path, model: str) -> dict[str, str]:
    return {answer.seed_id: answer.text.strip() for answer in read_records(run_dir / "evaluate" / model, Scored)}


def overlaps(given: Mapping[str, str], wanted: Mapping[str, str]) -> Measures:
    """How much of the teacher's wording comes back, 0 to 1."""
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    rouge = RougeScorer(["rougeL"], use_stemmer=False)
    return {
        "chrF": {seed: sacrebleu.sentence_chrf(given[seed], [text]).score / 100 for seed, text in wanted.items()},
        "ROUGE-L": {seed: rouge.score(text, given[seed])["rougeL"].fmeasure for seed, text in wanted.items()},
    }


def divergences(config: Config, part: Path, held_out: Path) -> dict[str, float]:
    """Forward KL a token of the student in `part`, for every held-out seed."""
    path, revision = students.made(part)
    student: Any = load_weights(path, revision, torch.float32).eval()
    tokenizer = Tokenizer(path, revision)
    seen = prompts.load(config.train.prompt)
    samples: list[Sample] = (rows := Samples(held_out / "generate")).take(0, len(rows))
    encoded = [(tokenizer.encode(seen.render(s.seed, tokenizer.control_tokens)), list(s.token_ids or ())) for s in samples]
    frames = TopKFolder(held_out / "generate")
    head = student.get_output_embeddings().weight.detach()
    with torch.no_grad():
        states = list(completion_states(student, encoded))
    return {s.seed.id: _kl(hidden, head, s, frames) for s, hidden in zip(samples, states, strict=True)}


def _kl(hidden: Tensor, head: Tensor, sample: Sample, frames: TopKFolder) -> float:
    labels = torch.tensor(sample.token_ids)
    with torch.no_grad():
        loss = distillation_loss(hidden, head, labels, Objective(alpha=0.0), stack([frames.of(sample)]))
    return float(loss.kd) / len(labels)


if __name__ == "__main__":
    print("\n".join(report(Path(sys.argv[1]), Path(sys.argv[2]))))
