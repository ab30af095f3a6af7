"""Contextual calibration in the stage: the teacher is asked about inputs without content, once."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Config, load
from pipeline.data.seeds import load as load_seeds
from pipeline.errors import PipelineError
from pipeline.execution import runner
from pipeline.filters import build
from pipeline.filters.confidence import contextual_calibration
from pipeline.filters.confidence.filters import _label_tokens as label_tokens
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate
from pipeline.storage.files import read_json
from pipeline.storage.soft_labels import SoftLabels

TEXTS = ["N/A", "[MASK]", ""]


def of(workshop: Path, *overrides: str) -> Config:
    return load(workshop / "config.yaml", ["filter.correct=false", *overrides])


@pytest.fixture
def generated(workshop: Path) -> Path:
    runner.execute(generate, of(workshop))
    return workshop


def test_the_teacher_is_asked_once(generated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A changed threshold must not load the teacher again, other texts must; and what it said decides the soft labels."""
    soft: dict[str, np.ndarray] = {}
    for setting, asked in (
        ("[N/A, '[MASK]', '']", 1),
        ("[N/A, '[MASK]', '']", 0),
        ("[nothing]", 1),
    ):
        config = of(generated, f"filter.calibrated={{agree: false, content_free: {setting}}}")
        runner.execute(filter_stage, config, prepare=runner.archive)
        assert capsys.readouterr().out.count("inputs without content") == asked
        soft[setting] = next(
            iter(SoftLabels.read(Path(config.run_dir) / "filter" / "kept").of.values())
        )[2]
    one, other = soft.values()
    assert not np.allclose(one, other)


def test_a_row_for_each_text(generated: Path) -> None:
    """One text's distribution in the place of another's would go unseen; a text that is answered without a label counts for nothing."""
    texts, replies = [*TEXTS, *map(str, range(20))], [" yes, it is\n", " perhaps\n"]
    config = of(
        generated,
        f"filter.calibrated={{content_free: {texts}}}",
        f"teacher.replies={json.dumps(replies)}",
    )
    found = contextual_calibration.distributions(config, label_tokens(config))
    assert found.shape == (23, 2)
    readable = ~np.isnan(found).any(axis=1)
    assert 0 < readable.sum() < 23
    assert (found[readable].sum(axis=1) <= 1 + 1e-5).all()
    kept = next((Path(config.run_dir) / "measured").glob("content_free-*.json"))
    assert read_json(kept)["texts"][:3] == TEXTS


def test_no_label_at_all_is_an_error(generated: Path) -> None:
    """A mean over nothing would make every row nan."""
    config = of(generated, "filter.calibrated={content_free: [N/A]}", "teacher.replies=[perhaps]")
    with pytest.raises(
        PipelineError,
        match="gave none of the labels to any of 'N/A'; choose other texts, or leave content_free out",
    ):
        contextual_calibration.distributions(config, label_tokens(config))


def test_inputs_of_several_values_are_refused(generated: Path) -> None:
    """A template that walks over a list would walk over the letters of the text; one that it does not name is of no concern."""
    seeds = generated / "seeds.jsonl"
    seeds.write_text('{"id": "a", "number": 2, "options": ["a", "b"], "target": "yes"}\n')
    config = of(
        generated,
        "filter.calibrated={content_free: [N/A]}",
        f"task.seeds.path={seeds}",
        f"run_dir={generated / 'other'}",
    )
    prompt = generated / "prompt.md"
    text = prompt.read_text()
    runner.execute(generate, config)
    contextual_calibration.distributions(config, label_tokens(config))
    prompt.write_text(text.replace("even?", "even or one of {{ options[0] }}?"))
    with pytest.raises(PipelineError, match="input 'options' holds several values"):
        build.check(config, load_seeds(config.task.seeds))
    runner.execute(generate, config, prepare=runner.archive)
    with pytest.raises(PipelineError, match="input 'options' holds several values"):
        contextual_calibration.distributions(config, label_tokens(config))


@pytest.mark.parametrize(
    ("calibrated", "change", "refused"),
    [
        ("content_free: [N/A]", "teacher.temperature=0.5", True),
        ("content_free: [N/A]", "teacher.patience_s=1.0", False),
        ("agree: true", "teacher.temperature=0.5", False),
        ("agree: true", "teacher.model=other", True),
    ],
)
def test_another_teacher_than_the_samples(
    generated: Path, calibrated: str, change: str, refused: bool
) -> None:
    """Its bias, or its tokenizer's labels, would be taken for those of the teacher that wrote the samples."""
    config = of(generated, f"filter.calibrated={{{calibrated}}}", change)
    if refused:
        with pytest.raises(
            PipelineError,
            match=f"not the one that wrote the samples.*\n  {change.partition('=')[0]}",
        ):
            runner.execute(filter_stage, config)
    else:
        assert runner.execute(filter_stage, config)
