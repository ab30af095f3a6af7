"""A prepared run, what training logged of it, and its loss by the definition."""

import json
import math
import shutil
from pathlib import Path

import torch

from pipeline.config import Config, load
from pipeline.execution import runner
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_weights
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate, train
from pipeline.storage.samples import Samples
from pipeline.storage.topk import TopKFolder


def prepared(workshop: Path, *overrides: str) -> Config:
    """Return the config of a run whose generate and filter are finished."""
    config = load(workshop / "config.yaml", overrides)
    for module in (generate, filter_stage):
        runner.execute(module, config)
    return config


def history(config: Config, arm: str) -> list[dict[str, float]]:
    """Return what training logged of an arm."""
    path = Path(config.run_dir) / "train" / arm / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def dense_loss(config: Config, alpha: float | str) -> float:
    """Return the loss of the untrained student on all kept rows, by the definition, from whole
    logits."""
    run_dir = Path(config.run_dir)
    path = train.student_path(run_dir, "init")
    model, tokenizer = load_weights(path, None, torch.float32), Tokenizer(path)
    frames = TopKFolder(run_dir / "generate")
    total, tokens = 0.0, 0
    for sample in Samples(run_dir / "filter" / "kept"):
        assert sample.token_ids is not None
        begin = tokenizer.hf(f"Is {sample.seed.inputs['number']} even?\nAnswer:")["input_ids"]
        logits = model(torch.tensor([begin + sample.token_ids])).logits[0, len(begin) - 1 : -1]
        student = logits.double().log_softmax(1)
        topk = frames.topk_of(sample)
        for row, token in enumerate(sample.token_ids):
            used = topk.logprobs[row] != -math.inf
            p = torch.tensor(topk.logprobs[row][used]).double()
            q = student[row, topk.ids[row][used]]
            tail, rest = float(topk.tail[row]), torch.log1p(-q.exp().sum())
            kl = (p.exp() * (p - q)).sum().item()
            if tail != -math.inf:
                kl += math.exp(tail) * (tail - rest.item())
            masses = [*p.exp().tolist(), math.exp(tail)]
            hard = _hard_share(alpha, masses)
            total += hard * -student[row, token].item() + (1 - hard) * kl
        tokens += len(sample.token_ids)
    return total / tokens


def _hard_share(alpha: float | str, masses: list[float]) -> float:
    """Return a token's weight of the cross-entropy. `masses` are of its entries and its tail."""
    if alpha == "confidence":
        return masses[0]
    if alpha == "entropy":
        return math.exp(sum(mass * math.log(mass) for mass in masses if mass > 0))
    return float(alpha)


def losses(config: Config, arm: str) -> list[float]:
    """Return the logged losses of an arm."""
    return [entry["loss"] for entry in history(config, arm) if "loss" in entry]


def student_of_another_tokenizer(config: Config, folder: Path) -> Path:
    """Copy the base student into `folder`, with the token ids of "a" and "b" exchanged."""
    runner.execute(train, config, ["init"])
    shutil.copytree(train.student_path(Path(config.run_dir), "init"), folder)
    vocabulary = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(
        vocabulary.replace('"a":', '"TMP":').replace('"b":', '"a":').replace('"TMP":', '"b":')
    )
    return folder
