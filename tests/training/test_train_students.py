"""Adapters and trimmed vocabularies go the whole way: training, the saved folder, evaluation."""

import json
from pathlib import Path

import torch

from pipeline.data.vocabulary import Vocabulary
from pipeline.execution import runner
from pipeline.models.weights import load_weights
from pipeline.stages import evaluate, train
from tests.support.training import losses, prepared


def test_adapters_are_trained_and_merged_into_an_ordinary_folder(workshop: Path) -> None:
    """A folder of adapters alone is served by nothing; embeddings that moved were not frozen."""
    config = prepared(
        workshop,
        "student.lora={rank: 4}",
        "train.epochs=6",
        "train.learning_rate=0.01",
        "train.log_steps=1",
    )
    runner.execute(train, config)
    found = losses(config, "kd")
    assert found[-1] < found[0]
    start, end = (
        load_weights(train.student_path(Path(config.run_dir), part), None, torch.float32)
        for part in ("init", "kd")
    )
    assert torch.equal(start.lm_head.weight, end.lm_head.weight)
    assert not torch.equal(
        start.model.layers[0].mlp.up_proj.weight, end.model.layers[0].mlp.up_proj.weight
    )


def test_trimmed_student_learns_from_frames_in_the_teachers_ids(workshop: Path) -> None:
    """The stored ids are the teacher's for ever; the student's are others, and so are those of its tokenizer."""
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
