"""White-box arms: a live teacher beside the tiny student."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from pipeline.config import Config, load
from pipeline.errors import PipelineError
from pipeline.execution import manifest, runner
from pipeline.inspection import validate
from pipeline.models.weights import load_weights
from pipeline.stages import train
from pipeline.storage.files import read_json, write_json
from tests.support.task import PROMPT
from tests.support.training import (
    history,
    losses,
    prepared,
    student_of_another_tokenizer,
)

ALL = "hidden: {}, attention: {}, relation: {}"
MAPS = "attention: {kind: maps}"
FAST = ("train.log_steps=1", "train.epochs=2", "train.learning_rate=0.003")
TERMS = ("hidden", "attention", "relation")


def with_teacher(workshop: Path, *overrides: str) -> Config:
    """Return a config whose rows are the fake's and whose teacher is a random model of 4 layers."""
    if not (workshop / "run").exists():
        prepared(workshop)
    config = load(workshop / "config.yaml", ["student.shape={layers: 4}"])
    runner.execute(train, config, ["init"], prepare=runner.archive)
    shutil.copytree(train.student_path(Path(config.run_dir), "init"), workshop / "teacher")
    return again(workshop, *overrides)


def again(workshop: Path, *overrides: str) -> Config:
    """Return the config with other settings, after train/init."""
    teacher = ["teacher.backend=vllm", f"teacher.model={workshop / 'teacher'}"]
    unused = ["teacher.replies=null", "evaluate.backend=vllm"]
    config = load(workshop / "config.yaml", [*FAST, *teacher, *unused, *overrides])
    runner.execute(train, config, ["init"], prepare=runner.archive)
    return config


def arm(terms: str, **others: object) -> str:
    parts = [terms, *(f"{name}: {json.dumps(value)}" for name, value in others.items())]
    return f"train.arms={{kd: {{{', '.join(parts)}}}}}"


def trained(config: Config) -> Config:
    runner.execute(train, config, ["kd"], prepare=runner.archive)
    return config


def terms_of(config: Config) -> list[list[float]]:
    entries = [entry for entry in history(config, "kd") if "loss" in entry]
    return [
        [entry[f"loss_{term}"] for term in TERMS if f"loss_{term}" in entry] for entry in entries
    ]


def checkpoints(config: Config) -> list[Path]:
    folder = Path(config.run_dir) / "train" / "kd" / "checkpoints"
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def saved(config: Config, name: str = "model") -> set[str]:
    path = next((Path(config.run_dir) / "train" / "kd" / name).glob("model.safetensors"))
    with safe_open(path, "np") as file:
        return set(file.keys())


@pytest.mark.parametrize("terms", [ALL, MAPS])
def test_whole_student_under_the_same_prompt_has_no_loss(workshop: Path, terms: str) -> None:
    """Positions of the two rows that are one token apart, or hooks on other modules."""
    config = trained(with_teacher(workshop, "student.model=teacher", arm(terms)))
    assert terms_of(config)[0] == pytest.approx([0.0] * len(terms_of(config)[0]), abs=1e-5)
    assert max(terms_of(config)[-1]) > 1e-5


def test_terms_fall_and_add_up_to_the_loss(
    workshop: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A term that is logged and not minimised, or minimised and not logged."""
    config = with_teacher(workshop, arm(ALL), "student.shape={layers: 2, hidden: 64}")
    config = trained(config)
    entries = [entry for entry in history(config, "kd") if "loss" in entry]
    for entry in entries:
        parts = [entry[f"loss_{name}"] for name in ("ce", "kd", *TERMS)]
        assert sum(parts) == pytest.approx(entry["loss"], rel=1e-3)
    assert terms_of(config)[-1][0] < 0.8 * terms_of(config)[0][0]
    counts = manifest.read_manifest(Path(config.run_dir), "train/kd")["counts"]
    assert {f"loss_{term}" for term in TERMS} <= counts.keys()
    printed = capfd.readouterr()
    assert "reads every row too, for hidden, attention, relation: 0.00 GiB" in printed.out
    assert ", hidden 0." in train.summary(config)


def test_projectors_are_trained_and_not_saved(workshop: Path) -> None:
    """A projector that stays at its first values, or a student that no library loads."""
    config = with_teacher(
        workshop, arm(ALL, method="sft"), "student.shape={layers: 2, hidden: 32}",
        "train.save_steps=2",
    )  # fmt: skip
    config = trained(config)
    start = load_weights(train.student_path(Path(config.run_dir), "init"), None, torch.float32)
    tied = {"lm_head.weight"}
    assert saved(config) == set(start.state_dict()) - tied
    first, last = (
        safe_open(path / "projectors.safetensors", "np").get_tensor("0.weight")
        for path in checkpoints(config)
    )
    assert first.shape == (64, 32)
    assert abs(first - last).max() > 1e-4
    assert saved(config, f"checkpoints/{checkpoints(config)[0].name}") == saved(config)


@pytest.mark.parametrize("options", [[], ["student.lora={rank: 4}"]])
def test_killed_arm_continues_on_the_same_curve(workshop: Path, options: list[str]) -> None:
    """After a resume the projectors, which no model's folder has, would start from other values."""
    small = "student.shape={layers: 2, hidden: 32}"
    config = with_teacher(workshop, arm(ALL), small, "train.save_steps=3", *options)
    folder = Path(trained(config).run_dir) / "train" / "kd"
    before, whole = terms_of(config), (folder / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(checkpoints(config)[-1])
    shutil.rmtree(folder / "model")
    (folder / "manifest.json").unlink()
    runner.execute(train, config, ["kd"])
    assert terms_of(config) == [pytest.approx(terms, rel=1e-5) for terms in before]
    assert (folder / "model" / "model.safetensors").read_bytes() == whole


def test_options_of_training_change_no_loss(workshop: Path) -> None:
    """Hooks that fire twice under checkpointing, packed rows that relate to one another, or
    projectors that DDP does not synchronise."""
    small = "student.shape={layers: 2, hidden: 32}"
    terms = arm("hidden: {}, attention: {layers: even}", rationale_weight=0.3)
    config = with_teacher(workshop, terms, small, "train.batch_size=8")
    plain = [pytest.approx(terms, rel=1e-4) for terms in terms_of(trained(config))]
    for options in (
        ["train.gradient_checkpointing=true", "train.batch_size=4", "train.accumulate=2"],
        ["train.batch_size=4", "train.processes=2"],
    ):
        assert terms_of(trained(again(workshop, terms, small, *options))) == plain
    whole = [terms, small, "train.batch_size=64"]
    expected = terms_of(trained(again(workshop, *whole)))
    packed = again(workshop, *whole, "train.packing=true", "train.max_length=128")
    assert terms_of(trained(packed))[0] == pytest.approx(expected[0], rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        ["student.lora={rank: 4}", arm(ALL), "student.shape={layers: 2, hidden: 32}"],
        ["student.trim_vocabulary=true", arm(ALL, form="answer")],
        ["student.trim_vocabulary=true", arm(ALL, method="sft", text="truth")],
        ["train.dtype=bfloat16", arm(f"{MAPS}, hidden: {{distance: mse}}, relation: {{}}")],
        ["train.packing=true", arm(f"{MAPS}, hidden: {{layers: [[0, 3]]}}"), "train.canaries=4"],
        ["train.holdout=0.3", "train.eval_steps=2", "train.patience=2", arm(ALL)],
    ],
)
def test_other_features_work_with_it(workshop: Path, options: list[str]) -> None:
    """Adapters, other rows, other ids and other precision each have their own way to break it."""
    config = trained(with_teacher(workshop, "train.epochs=4", *options))
    assert losses(config, "kd")[-1] < losses(config, "kd")[0]
    assert all(term > 0 for terms in terms_of(config) for term in terms)


def test_cut_student_is_compared_with_the_layers_it_came_from(workshop: Path) -> None:
    """`auto` that meant evenly spaced layers would pull a cut student away from its teacher."""
    cut = ["student.model=teacher", "student.keep_layers=[0, 1, 2]", "train.batch_size=64"]
    config = with_teacher(workshop, *cut, arm("hidden: {}"))
    assert terms_of(trained(config))[0][0] == pytest.approx(0.0, abs=1e-5)
    even = again(workshop, *cut, arm("hidden: {layers: even}"))
    assert terms_of(trained(even))[0][0] > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            [arm("hidden: {layers: [[0, 4]]}")],
            r"train\.arms\.kd\.hidden\.layers: \[0, 4\] names layer 4 of the teacher, which has 4",
        ),
        (
            [arm("attention: {layers: [[2, 0]]}")],
            r"attention\.layers: \[2, 0\] names layer 2 of the student, which has 2",
        ),
    ],
)
def test_bad_layers_are_refused(workshop: Path, options: list[str], message: str) -> None:
    """A layer that does not exist must not be found after the weights were loaded."""
    config = with_teacher(workshop, *options)
    with pytest.raises(PipelineError, match=message):
        validate.check_config(config)
    with pytest.raises(PipelineError, match=message):
        runner.execute(train, config, ["kd"])


def test_relation_without_enough_rows_is_refused(workshop: Path) -> None:
    """Batches of two rows have no angles: half of the loss would be missing in silence."""
    options = ["train.arms.kd.relation={}", "train.batch_size=2"]
    with pytest.raises(PipelineError, match="arm kd has relation, which compares 3 rows or more"):
        load(workshop / "config.yaml", options)


def test_student_of_another_tokenizer_is_refused(workshop: Path) -> None:
    """An sft arm may have another tokenizer, but not a position for each of the teacher's."""
    other = student_of_another_tokenizer(prepared(workshop), workshop / "other")
    config = with_teacher(workshop, f"student.model={other}", arm("hidden: {}", method="sft"))
    message = r"; hidden needs the same vocabulary.* without these"
    with pytest.raises(PipelineError, match=message):
        validate.check_config(config)
    with pytest.raises(PipelineError, match=message):
        runner.execute(train, config, ["kd"])


def test_other_teacher_is_another_arm(workshop: Path) -> None:
    """A teacher whose weights changed in place, or a run from before there were such arms."""
    config = trained(with_teacher(workshop, arm("hidden: {}")))
    weights = bytearray((workshop / "teacher" / "model.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (workshop / "teacher" / "model.safetensors").write_bytes(weights)
    with pytest.raises(PipelineError, match="model teacher"):
        runner.execute(train, config, ["kd"])
    old = trained(again(workshop, "train.arms={kd: {}}"))
    path = Path(old.run_dir) / "train" / "kd" / "begun.json"
    begun = read_json(path)
    for term in TERMS:
        del begun["fingerprint"][f"train.arms.kd.{term}"]
    write_json(path, begun)
    assert runner.is_done(train, old, ["kd"])


def test_teachers_prompt_may_be_longer(workshop: Path) -> None:
    """The teacher reads its own prompt: with the student's, context distillation teaches less."""
    longer = PROMPT.replace("Is {{", "Say yes or no, then why. Is {{")
    (workshop / "longer.md").write_text(longer)
    prepared(workshop, f"generate.prompt={workshop / 'longer.md'}")
    config = with_teacher(workshop, "student.model=teacher", arm("hidden: {}"))
    assert terms_of(trained(config))[0][0] > 1e-3
