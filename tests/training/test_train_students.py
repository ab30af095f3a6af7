"""Adapters and trimmed vocabularies in the whole flow: training, saved folder, evaluation."""

import json
from pathlib import Path

import torch

from pipeline.data.vocabulary import Vocabulary
from pipeline.execution import runner
from pipeline.models.weights import load_weights
from pipeline.stages import evaluate, train
from tests.support.training import losses, prepared


def test_adapters_are_trained_and_merged_into_an_ordinary_folder(workshop: Path) -> None:
    """No server loads a folder of adapters alone; embeddings that changed were not frozen."""
    config = prepared(
        workshop,
        "student.lora={rank: 4}",
        "train.epochs=6",
        "train.learning_rate=0.01",
        "train.log_steps=1",
    )
    runner.execute(train, config)
    curve = losses(config, "kd")
    assert curve[-1] < curve[0]
    start, end = (
        load_weights(train.student_path(Path(config.run_dir), part), None, torch.float32)
        for part in ("init", "kd")
    )
    assert torch.equal(start.lm_head.weight, end.lm_head.weight)
    assert not torch.equal(
        start.model.layers[0].mlp.up_proj.weight, end.model.layers[0].mlp.up_proj.weight
    )


def test_trimmed_student_learns_from_frames_in_the_teachers_ids(workshop: Path) -> None:
    """The stored ids are always the teacher's; those of the student and its tokenizer differ."""
    config = prepared(
        workshop,
        "student.trim_vocabulary=true",
        "train.epochs=6",
        "train.learning_rate=0.003",
        "train.log_steps=1",
    )
    runner.execute(train, config)
    folder = Path(train.student_path(Path(config.run_dir), "kd"))
    kept = Vocabulary.read(folder)
    assert kept is not None
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == len(kept.kept)
    assert losses(config, "kd")[-1] < 0.8 * losses(config, "kd")[0]
    runner.execute(evaluate, config)
