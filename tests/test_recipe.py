"""The flat recipe does what the full trainer does."""

from pathlib import Path

import pytest

from pipeline import recipe, stage
from pipeline.models.weights import load_weights
from pipeline.stages import train
from tests.test_train import dense_loss, prepared


def test_recipe_minimises_the_same_loss(workshop: Path) -> None:
    """A page that teaches another loss than the one that is used."""
    config = prepared(workshop)
    stage.execute(train, config, ["init"])
    losses = recipe.distil(Path(config.run_dir), workshop / "out", batch_size=64)
    assert losses == [pytest.approx(dense_loss(config, 0.1), rel=1e-4)]
    assert load_weights(str(workshop / "out"), None, "auto").config.vocab_size > 0
