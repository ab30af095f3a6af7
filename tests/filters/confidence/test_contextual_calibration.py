"""Contextual calibration in the filter stage: the teacher reads inputs without content, once."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

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


def configure(workshop: Path, *overrides: str) -> Config:
    return load(workshop / "config.yaml", ["filter.correct=false", *overrides])


def distributions(config: Config) -> NDArray[np.float32]:
    assert config.filter.calibrated is not None
    assert config.filter.calibrated.content_free is not None
    return contextual_calibration.distributions(
        config, config.filter.calibrated.content_free, label_tokens(config)
    )


@pytest.fixture
def generated(workshop: Path) -> Path:
    runner.execute(generate, configure(workshop))
    return workshop


def test_the_teacher_is_asked_once(generated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A changed threshold loaded the teacher again. Other texts must, and change the labels."""
    soft: dict[str, np.ndarray] = {}
    for texts, times_asked in (
        ("[N/A, '[MASK]', '']", 1),
        ("[N/A, '[MASK]', '']", 0),
        ("[nothing]", 1),
    ):
        config = configure(generated, f"filter.calibrated={{agree: false, content_free: {texts}}}")
        runner.execute(filter_stage, config, prepare=runner.archive)
        assert capsys.readouterr().out.count("inputs without content") == times_asked
        labels = SoftLabels.read(Path(config.run_dir) / "filter" / "kept")
        soft[texts] = next(iter(labels.by_sample.values()))[2]
    first, second = soft.values()
    assert not np.allclose(first, second)


def test_a_row_for_each_text(generated: Path) -> None:
    """The rows of two texts were swapped; an answer without a label must not count."""
    texts = [*TEXTS, *map(str, range(20))]
    replies = [" yes, it is\n", " perhaps\n"]
    config = configure(
        generated,
        f"filter.calibrated={{content_free: {texts}}}",
        f"teacher.replies={json.dumps(replies)}",
    )
    rows = distributions(config)
    assert rows.shape == (23, 2)
    readable = ~np.isnan(rows).any(axis=1)
    assert 0 < readable.sum() < 23
    assert (rows[readable].sum(axis=1) <= 1 + 1e-5).all()
    stored = next((Path(config.run_dir) / "measured").glob("content_free-*.json"))
    assert read_json(stored)["texts"][:3] == TEXTS


def test_no_label_at_all_is_an_error(generated: Path) -> None:
    """The mean of no rows made every row nan."""
    config = configure(
        generated, "filter.calibrated={content_free: [N/A]}", "teacher.replies=[perhaps]"
    )
    message = (
        "gave none of the labels to any of 'N/A'; choose other texts, or leave content_free out"
    )
    with pytest.raises(PipelineError, match=message):
        distributions(config)


def test_inputs_of_several_values_are_refused(generated: Path) -> None:
    """A template that loops over a list looped over the letters of the text. An input that the
    template does not name does not matter."""
    seeds = generated / "seeds.jsonl"
    seeds.write_text('{"id": "a", "number": 2, "options": ["a", "b"], "target": "yes"}\n')
    config = configure(
        generated,
        "filter.calibrated={content_free: [N/A]}",
        f"task.seeds.path={seeds}",
        f"run_dir={generated / 'other'}",
    )
    prompt = generated / "prompt.md"
    text = prompt.read_text()
    runner.execute(generate, config)
    distributions(config)
    prompt.write_text(text.replace("even?", "even or one of {{ options[0] }}?"))
    with pytest.raises(PipelineError, match="input 'options' holds several values"):
        build.check(config, load_seeds(config.task.seeds))
    runner.execute(generate, config, prepare=runner.archive)
    with pytest.raises(PipelineError, match="input 'options' holds several values"):
        distributions(config)


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
    """The bias or the label tokens of another teacher were used for these samples."""
    config = configure(generated, f"filter.calibrated={{{calibrated}}}", change)
    if refused:
        message = f"not the one that wrote the samples.*\n  {change.partition('=')[0]}"
        with pytest.raises(PipelineError, match=message):
            runner.execute(filter_stage, config)
    else:
        assert runner.execute(filter_stage, config)
