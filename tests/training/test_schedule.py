"""Batch size, epochs and learning rate where the config does not say."""

import pytest

from pipeline.config import Arm, Train
from pipeline.training.schedule import Schedule, filled, schedule

OPEN = Train(prompt="prompt.md")


@pytest.mark.parametrize(
    ("rows", "batch", "epochs"),
    [
        (40, 8, 4.0),
        (320, 8, 2.5),
        (700, 8, 1.14),
        (1000, 16, 1.59),
        (1600, 16, 1.0),
        (10**6, 16, 1.0),
    ],
)
def test_few_rows_get_small_batches_and_more_passes(rows: int, batch: int, epochs: float) -> None:
    """Forty-four steps left students at the majority baseline; a million rows need one pass."""
    found = schedule(OPEN, Arm(), rows, 576, adapters=False)
    assert (found.batch_size, found.epochs) == (batch, epochs)


@pytest.mark.parametrize(
    ("width", "adapters", "rate"),
    [(576, False, 1e-4), (64, False, 1e-4), (1536, False, 3.8e-5), (4096, True, 1.4e-4)],
)
def test_wider_models_learn_more_slowly(width: int, adapters: bool, rate: float) -> None:
    """The rate of a 135M model destroys a 7B one."""
    assert schedule(OPEN, Arm(), 1000, width, adapters).learning_rate == rate


def test_what_the_config_says_comes_first() -> None:
    """A rule that overrides a setting would make it a dead option."""
    train = Train(prompt="prompt.md", batch_size=4, epochs=3, learning_rate=1e-5)
    assert schedule(train, Arm(), 10, 576, False) == Schedule(4, 3, 1e-5)
    arm = Arm(epochs=7, learning_rate=1e-6)
    assert schedule(train, arm, 10, 576, False) == Schedule(4, 7, 1e-6)
    assert filled(train, arm, 10, 576, False).epochs == 7
