"""Training on the tiny student: losses agree with a dense reference, and a killed arm resumes."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import load
from pipeline.errors import PipelineError
from pipeline.execution import manifest, runner
from pipeline.inspection import validate
from pipeline.losses.distillation import Loss, distillation_loss
from pipeline.models.weights import load_weights, size_of
from pipeline.records import Scored
from pipeline.stages import evaluate, train
from pipeline.storage.shards import read_records
from tests.support.training import (
    dense_loss,
    history,
    losses,
    prepared,
    student_of_another_tokenizer,
)


@pytest.mark.parametrize(
    ("arm", "alpha"), [("kd", 0.1), ("kd", "confidence"), ("kd", "entropy"), ("sft", 1.0)]
)
def test_first_loss_equals_the_dense_one(workshop: Path, arm: str, alpha: float | str) -> None:
    """Shifts, masks, prompt lengths, frames and normalisation must survive TRL's own machinery."""
    arms = f"train.arms={{{arm}: {{method: {arm}, alpha: {alpha}}}}}"
    config = prepared(workshop, "train.batch_size=64", "train.log_steps=1", arms)
    runner.execute(train, config, ["init", arm])
    assert history(config, arm)[0]["loss"] == pytest.approx(dense_loss(config, alpha), rel=2e-4)


def test_shares_of_the_loss_are_logged_and_add_up(workshop: Path) -> None:
    """A KD term without effect must be visible in the log."""
    config = prepared(workshop, "train.log_steps=1", "train.epochs=2")
    runner.execute(train, config, ["init", "kd"])
    logged = [entry for entry in history(config, "kd") if "loss_kd" in entry and "loss" in entry]
    assert logged
    for entry in logged:
        assert entry["loss_ce"] + entry["loss_kd"] == pytest.approx(entry["loss"], rel=1e-3)


def test_bfloat16_reaches_the_body(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The redirected forward bypassed accelerate's autocast: bf16 training silently ran in fp32."""
    dtypes: list[torch.dtype] = []

    def spy(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Loss:
        dtypes.append(hidden.dtype)
        return distillation_loss(hidden, *args, **kwargs)

    monkeypatch.setattr("pipeline.training.trainer.distillation_loss", spy)
    config = prepared(workshop, "train.dtype=bfloat16")
    runner.execute(train, config, ["init", "sft"])
    assert set(dtypes) == {torch.bfloat16}


def test_untouched_student_that_changes_is_noticed(workshop: Path) -> None:
    """A base student that is used where it is may be trained there, and must not pass as the old
    one."""
    config = prepared(workshop)
    runner.execute(train, config, ["init"])
    other = workshop / "other"
    shutil.copytree(train.student_path(Path(config.run_dir), "init"), other)
    outside = load(
        workshop / "config.yaml", [f"student.model={other}", "train.arms={sft: {method: sft}}"]
    )
    runner.execute(train, outside, ["init"], prepare=runner.archive)
    runner.execute(train, outside, ["sft"])
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    with pytest.raises(PipelineError, match="model student"):
        runner.execute(train, outside, ["sft"])


OPTIONS = (
    "train.batch_size=64",
    "train.log_steps=1",
    "train.epochs=3",
    "train.learning_rate=0.003",
)


def test_packed_rows_give_the_same_losses(workshop: Path) -> None:
    """Packing lost the columns that assign distributions to tokens, and let samples see one
    another."""
    config = prepared(workshop, *OPTIONS)
    runner.execute(train, config, ["init", "kd"])
    plain = losses(config, "kd")
    packed = load(
        workshop / "config.yaml", [*OPTIONS, "train.packing=true", "train.max_length=128"]
    )
    runner.execute(train, packed, ["kd"], prepare=runner.archive)
    assert losses(packed, "kd") == pytest.approx(plain, rel=1e-5)


def test_batches_by_length_hold_the_same_rows(workshop: Path) -> None:
    """Grouping by length must change the order alone."""
    config = prepared(
        workshop,
        "train.batch_size=64",
        "train.log_steps=1",
        "train.group_by_length=true",
        "train.arms.kd.alpha=0.5",
    )
    runner.execute(train, config, ["init", "kd"])
    assert losses(config, "kd")[0] == pytest.approx(dense_loss(config, 0.5), rel=2e-4)


def test_schedules_go_from_start_to_end(workshop: Path) -> None:
    """An alpha that never moved passed for a schedule: from CE alone to KD alone the shares must
    swap."""
    config = prepared(
        workshop,
        "train.log_steps=1",
        "train.epochs=2",
        "train.arms={kd: {alpha: 1, alpha_end: 0, temperature_end: 2}}",
    )
    runner.execute(train, config, ["init", "kd"])
    logged = [entry for entry in history(config, "kd") if "loss_kd" in entry and "loss" in entry]
    assert logged[0]["loss_kd"] == 0.0 < logged[0]["loss_ce"]
    assert logged[-1]["loss_ce"] == 0.0 < logged[-1]["loss_kd"]
    assert logged[0]["kd_gradient_share"] == 0.0
    assert logged[-1]["kd_gradient_share"] == 1.0


def test_idle_term_is_told_once(workshop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A KD arm whose KD term does nothing was reported as a KD result. A term that the config turns
    off needs no warning."""
    config = prepared(
        workshop,
        "train.log_steps=1",
        "train.epochs=4",
        "train.arms={kd: {alpha: 0.9999}, pure: {alpha: 0}, none: {alpha: 1}}",
    )
    runner.execute(train, config, ["init", "kd", "pure", "none"])
    errors = capfd.readouterr().err
    remedy = "it does nothing. Give the arm a lower alpha, such as 0.1, or train it"
    assert errors.count(remedy) == errors.count("it does nothing") == 2  # in loss and gradient


def test_ground_truth_arm_needs_no_teacher(workshop: Path) -> None:
    """A teacher may be fine-tuned before anything is generated. The first N rows alone are the
    control with few labels."""
    config = load(
        workshop / "config.yaml", ["train.arms={few: {method: sft, text: truth, limit: 12}}"]
    )
    runner.execute(train, config)
    counts = manifest.read_manifest(Path(config.run_dir), "train/few")["counts"]
    assert (counts["rows"], counts["steps"]) == (12, 2)


def test_wrong_answers_give_way_to_the_truth(workshop: Path) -> None:
    """Half of the fake teacher's answers are wrong: those rows must become CE on the ground truth,
    and the others stay KD."""
    config = prepared(
        workshop,
        "filter={correct: false, duplicate: false}",
        "train.arms={kd: {alpha: 0, corrected: true}, plain: {alpha: 0}}",
        "train.log_steps=1",
    )
    runner.execute(train, config, ["init", "kd", "plain"])
    rows = [
        manifest.read_manifest(Path(config.run_dir), f"train/{arm}")["counts"]["rows"]
        for arm in ("kd", "plain")
    ]
    assert rows[0] < rows[1]  # a seed with two wrong samples has one truth
    first = {
        arm: next(entry for entry in history(config, arm) if "loss" in entry)
        for arm in ("kd", "plain")
    }
    assert first["plain"]["loss_ce"] == 0.0
    assert first["kd"]["loss_ce"] > 0.0 < first["kd"]["loss_kd"]


def test_student_is_asked_in_the_form_it_was_trained_for(workshop: Path) -> None:
    """A student of answers alone, read like one that reasons, scored 0. Step by step makes two
    rows."""
    config = prepared(
        workshop,
        "train.arms={answer: {form: answer}, steps: {form: steps, rationale_weight: 0.5}}",
        "train.log_steps=1",
    )
    runner.execute(train, config)
    rows = {
        arm: manifest.read_manifest(Path(config.run_dir), f"train/{arm}")["counts"]["rows"]
        for arm in ("answer", "steps")
    }
    assert rows["steps"] == 2 * rows["answer"] > 0
    runner.execute(evaluate, config)
    read = [
        scored.score.answer
        for scored in read_records(Path(config.run_dir) / "evaluate" / "answer", Scored)
    ]
    assert any(read)


def test_student_is_not_asked_in_another_form(workshop: Path) -> None:
    """A form or a prompt changed between training and evaluation was not noticed."""
    options = ["train.arms={kd: {form: answer}}"]
    config = prepared(workshop, *options)
    runner.execute(train, config)
    whole = load(workshop / "config.yaml", ["train.arms={kd: {form: whole}}"])
    with pytest.raises(
        PipelineError, match="was trained with form: answer, and the config now has whole"
    ):
        runner.execute(evaluate, whole, ["kd"])
    with (workshop / "prompt.md").open("a") as file:
        file.write(" ")
    with pytest.raises(PipelineError, match="was trained with another prompt"):
        runner.execute(evaluate, config, ["kd"], prepare=runner.archive)


def test_training_learns(workshop: Path) -> None:
    """Both methods must lower their loss."""
    config = prepared(workshop, "train.epochs=6", "train.learning_rate=0.003", "train.log_steps=1")
    runner.execute(train, config)
    for arm in ("kd", "sft"):
        curve = losses(config, arm)
        assert curve[-1] < 0.8 * curve[0]


def test_stopped_arm_goes_on_to_the_same_weights(workshop: Path) -> None:
    """A resume must continue the same curve: rows, order, optimiser and schedule."""
    options = ["train.epochs=6", "train.save_steps=3", "train.log_steps=1"]
    config = prepared(workshop, *options)
    runner.execute(train, config, ["init", "kd"])
    folder = Path(config.run_dir) / "train" / "kd"
    whole = (folder / "model" / "model.safetensors").read_bytes()
    before = losses(config, "kd")
    last = max(
        folder.glob("checkpoints/checkpoint-*"), key=lambda path: int(path.name.split("-")[1])
    )
    shutil.rmtree(last)
    torn = folder / "checkpoints" / "checkpoint-999"
    torn.mkdir()  # killed while it was being written
    for path in (folder / "model", folder / "manifest.json", folder / "history.jsonl"):
        shutil.rmtree(path) if path.is_dir() else os.remove(path)
    runner.execute(train, config, ["kd"])
    assert losses(config, "kd") == pytest.approx(before, rel=1e-5)
    assert (folder / "model" / "model.safetensors").read_bytes() == whole


def test_kept_layers_make_a_smaller_student(workshop: Path) -> None:
    """The layers must be those asked for, in that order, with nothing else changed."""
    config = prepared(workshop, "student.shape.layers=4")
    runner.execute(train, config, ["init"])
    big = train.student_path(Path(config.run_dir), "init")
    cut = load(
        workshop / "config.yaml",
        [f"student.model={big}", "student.keep_layers=[0,3]", f"run_dir={workshop / 'cut'}"],
    )
    runner.execute(train, cut, ["init"])
    small = load_weights(train.student_path(workshop / "cut", "init"), None, torch.float32)
    whole = load_weights(big, None, torch.float32)
    assert torch.equal(
        small.model.layers[1].mlp.up_proj.weight, whole.model.layers[3].mlp.up_proj.weight
    )
    sizes = [
        size_of(train.student_path(folder, "init"), None)
        for folder in (workshop / "run", workshop / "cut")
    ]
    assert sizes[0] is not None
    assert sizes[1] is not None
    assert sizes[1].parameters < sizes[0].parameters == sum(p.numel() for p in whole.parameters())
    beyond = load(
        workshop / "config.yaml",
        [f"student.model={big}", "student.keep_layers=[4]", f"run_dir={workshop / 'no'}"],
    )
    with pytest.raises(PipelineError, match=r"student\.keep_layers: 4 is not a layer"):
        validate.check_config(beyond)
    with pytest.raises(PipelineError, match=r"student\.keep_layers: 4 is not a layer"):
        runner.execute(train, beyond, ["init"])


def test_student_of_another_tokenizer_is_refused_under_kd_only(workshop: Path) -> None:
    """Ids of another tokenizer are other words."""
    config = prepared(workshop)
    other = student_of_another_tokenizer(config, workshop / "other")
    swapped = load(workshop / "config.yaml", [f"student.model={other}"])
    runner.execute(train, swapped, ["init"], prepare=runner.archive)
    with pytest.raises(PipelineError, match="kd needs the same vocabulary"):
        validate.check_config(swapped)
    with pytest.raises(PipelineError, match="kd needs the same vocabulary"):
        runner.execute(train, swapped, ["kd"])
    runner.execute(train, swapped, ["sft"])


def test_retrained_start_is_refused(workshop: Path) -> None:
    """Arms that started from different weights cannot be compared."""
    config = prepared(workshop)
    runner.execute(train, config)
    runner.execute(
        train, load(workshop / "config.yaml", ["train.seed=1"]), ["init"], prepare=runner.archive
    )
    with pytest.raises(PipelineError, match="output of train/init"):
        runner.execute(train, config, ["kd"])
