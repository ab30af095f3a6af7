"""Training on the tiny student: losses agree with a dense reference through TRL, and a killed arm goes on."""

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch

from pipeline import stage, validate
from pipeline.config import Config, load
from pipeline.errors import PipelineError
from pipeline.losses.kd import Loss, cross_entropy
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_weights, size_of
from pipeline.records import Sample
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate, train
from pipeline.store import read_records
from pipeline.topk import TopKFolder


def prepared(workshop: Path, *overrides: str) -> Config:
    config = load(workshop / "config.yaml", overrides)
    for module in (generate, filter_stage):
        stage.execute(module, config)
    return config


def history(config: Config, arm: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path(config.run_dir) / "train" / arm / "history.jsonl").read_text().splitlines()]


def dense_loss(config: Config, alpha: float) -> float:
    """The loss of the untrained student on all kept rows, by the definition, from its whole logits."""
    run_dir = Path(config.run_dir)
    path = train.student_path(run_dir, "init")
    model, tokenizer = load_weights(path, None, torch.float32), Tokenizer(path)
    frames = TopKFolder(run_dir / "generate")
    total, tokens = 0.0, 0
    for sample in read_records(run_dir / "filter" / "kept", Sample):
        assert sample.token_ids is not None
        begin = tokenizer.hf(f"Is {sample.seed.inputs['number']} even?\nAnswer:")["input_ids"]
        logits = model(torch.tensor([begin + sample.token_ids])).logits[0, len(begin) - 1 : -1]
        student = logits.double().log_softmax(1)
        topk = frames.of(sample)
        for row, token in enumerate(sample.token_ids):
            used = topk.logprobs[row] != -math.inf
            p, q = torch.tensor(topk.logprobs[row][used]).double(), student[row, topk.ids[row][used]]
            tail, rest = float(topk.tail[row]), torch.log1p(-q.exp().sum())
            total += alpha * -student[row, token].item() + (1 - alpha) * (p.exp() * (p - q)).sum().item()
            total += (1 - alpha) * math.exp(tail) * (tail - rest.item()) if tail != -math.inf else 0.0
        tokens += len(sample.token_ids)
    return total / tokens


@pytest.mark.parametrize(("arm", "alpha"), [("kd", 0.1), ("sft", 1.0)])
def test_first_loss_equals_the_dense_one(workshop: Path, arm: str, alpha: float) -> None:
    """Shifts, masks, prompt lengths, frames and normalisation, all through TRL's own machinery."""
    config = prepared(workshop, "train.batch_size=64", "train.log_steps=1")
    stage.execute(train, config, ["init", arm])
    assert history(config, arm)[0]["loss"] == pytest.approx(dense_loss(config, alpha), rel=2e-4)


def test_shares_of_the_loss_are_logged_and_add_up(workshop: Path) -> None:
    """A KD term that does nothing must be seen."""
    config = prepared(workshop, "train.log_steps=1", "train.epochs=2")
    stage.execute(train, config, ["init", "kd"])
    logged = [entry for entry in history(config, "kd") if "loss_kd" in entry and "loss" in entry]
    assert logged
    for entry in logged:
        assert entry["loss_ce"] + entry["loss_kd"] == pytest.approx(entry["loss"], rel=1e-3)


def test_bfloat16_reaches_the_body(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The redirected forward once went round accelerate's autocast: bf16 training was fp32 in silence."""
    seen: list[torch.dtype] = []

    def spy(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> Loss:
        seen.append(hidden.dtype)
        return cross_entropy(hidden, weight, labels)

    monkeypatch.setattr("pipeline.trainer.cross_entropy", spy)
    config = prepared(workshop, "train.dtype=bfloat16")
    stage.execute(train, config, ["init", "sft"])
    assert set(seen) == {torch.bfloat16}


def test_untouched_student_that_changes_is_noticed(workshop: Path) -> None:
    """Weights used where they are, and trained on there, must not pass as the old ones."""
    config = prepared(workshop)
    stage.execute(train, config, ["init"])
    other = workshop / "other"
    shutil.copytree(train.student_path(Path(config.run_dir), "init"), other)
    outside = load(workshop / "config.yaml", [f"student.model={other}", "train.arms={sft: {method: sft}}"])
    stage.execute(train, outside, ["init"], prepare=stage.set_aside)
    stage.execute(train, outside, ["sft"])
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    with pytest.raises(PipelineError, match="model student"):
        stage.execute(train, outside, ["sft"])


def test_training_learns(workshop: Path) -> None:
    """Both methods bring their loss down."""
    config = prepared(workshop, "train.epochs=6", "train.learning_rate=0.003", "train.log_steps=1")
    stage.execute(train, config)
    for arm in ("kd", "sft"):
        losses = [entry["loss"] for entry in history(config, arm) if "loss" in entry]
        assert losses[-1] < 0.8 * losses[0]


def test_stopped_arm_goes_on_to_the_same_weights(workshop: Path) -> None:
    """Resume is on the same curve: rows, order, optimiser and schedule."""
    options = ["train.epochs=6", "train.save_steps=3", "train.log_steps=1"]
    config = prepared(workshop, *options)
    stage.execute(train, config, ["init", "kd"])
    folder = Path(config.run_dir) / "train" / "kd"
    whole = (folder / "model" / "model.safetensors").read_bytes()
    losses = [entry["loss"] for entry in history(config, "kd") if "loss" in entry]
    last = max(folder.glob("checkpoints/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    shutil.rmtree(last)
    torn = folder / "checkpoints" / "checkpoint-999"
    torn.mkdir()  # killed while it was being written
    for path in (folder / "model", folder / "manifest.json", folder / "history.jsonl"):
        shutil.rmtree(path) if path.is_dir() else os.remove(path)
    stage.execute(train, config, ["kd"])
    assert [entry["loss"] for entry in history(config, "kd") if "loss" in entry] == pytest.approx(losses, rel=1e-5)
    assert (folder / "model" / "model.safetensors").read_bytes() == whole


def test_kept_layers_make_a_smaller_student(workshop: Path) -> None:
    """Layers in the order asked for, nothing else changed."""
    config = prepared(workshop, "student.shape.layers=4")
    stage.execute(train, config, ["init"])
    big = train.student_path(Path(config.run_dir), "init")
    cut = load(workshop / "config.yaml", [f"student.model={big}", "student.keep_layers=[0,3]", f"run_dir={workshop / 'cut'}"])
    stage.execute(train, cut, ["init"])
    small = load_weights(train.student_path(workshop / "cut", "init"), None, torch.float32)
    whole = load_weights(big, None, torch.float32)
    assert torch.equal(small.model.layers[1].mlp.up_proj.weight, whole.model.layers[3].mlp.up_proj.weight)
    sizes = [size_of(train.student_path(folder, "init"), None) for folder in (workshop / "run", workshop / "cut")]
    assert sizes[0] is not None
    assert sizes[1] is not None
    assert sizes[1].parameters < sizes[0].parameters == sum(p.numel() for p in whole.parameters())
    beyond = load(workshop / "config.yaml", [f"student.model={big}", "student.keep_layers=[4]", f"run_dir={workshop / 'no'}"])
    with pytest.raises(PipelineError, match=r"student\.keep_layers: 4 is not a layer"):
        validate.check(beyond)
    with pytest.raises(PipelineError, match=r"student\.keep_layers: 4 is not a layer"):
        stage.execute(
            train,
            load(workshop / "config.yaml", [f"student.model={big}", "student.keep_layers=[4]", f"run_dir={workshop / 'no'}"]),
            ["init"],
        )


def test_student_of_another_tokenizer_is_refused_under_kd_only(workshop: Path) -> None:
    """Its ids are other words."""
    config = prepared(workshop)
    stage.execute(train, config, ["init"])
    other = workshop / "other"
    shutil.copytree(train.student_path(Path(config.run_dir), "init"), other)
    vocabulary = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(vocabulary.replace('"a":', '"TMP":').replace('"b":', '"a":').replace('"TMP":', '"b":'))
    swapped = load(workshop / "config.yaml", [f"student.model={other}"])
    stage.execute(train, swapped, ["init"], prepare=stage.set_aside)
    with pytest.raises(PipelineError, match="kd needs the same vocabulary"):
        validate.check(swapped)
    with pytest.raises(PipelineError, match="kd needs the same vocabulary"):
        stage.execute(train, swapped, ["kd"])
    stage.execute(train, swapped, ["sft"])


def test_retrained_start_is_refused(workshop: Path) -> None:
    """Arms that began from different weights cannot be compared."""
    config = prepared(workshop)
    stage.execute(train, config)
    stage.execute(train, load(workshop / "config.yaml", ["train.seed=1"]), ["init"], prepare=stage.set_aside)
    with pytest.raises(PipelineError, match="output of train/init"):
        stage.execute(train, config, ["kd"])
