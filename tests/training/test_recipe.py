"""The recipes of docs/how-to/training-recipes.md, and the flat one in training/recipe.py."""

import re
import shlex
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM

from pipeline.config import Shape, load
from pipeline.errors import PipelineError
from pipeline.execution import runner
from pipeline.models.fake import TOKENIZER
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_weights
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate, train
from pipeline.students.build import random_config
from pipeline.training import recipe
from tests.support.task import ROOT
from tests.support.training import dense_loss, prepared

RECIPE_PAGE = ROOT / "docs" / "how-to" / "training-recipes.md"
RECIPES = [
    line.strip().removeprefix("pipeline train CONFIG ")
    for line in RECIPE_PAGE.read_text().splitlines()
    if line.startswith("    pipeline train CONFIG ")
]
WHITE_BOX = re.compile("hidden|attention|relation")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a random model of four layers."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer(str(TOKENIZER))
    LlamaForCausalLM(random_config(Shape(layers=4), tokenizer)).save_pretrained(folder)
    tokenizer.save(folder)
    return str(folder)


@pytest.mark.parametrize("options", RECIPES)
def test_documented_recipes_train(workshop: Path, model: str, options: str) -> None:
    """A documented recipe that does not run."""
    common = [f"student.model={model}", "train.epochs=2.0"]
    words = shlex.split(options)
    inside = [word for word in words if WHITE_BOX.search(word)]
    others = [word for word in words if word not in inside]
    rows = load(workshop / "config.yaml", [*common, *others])
    for module in (generate, filter_stage):
        runner.execute(module, rows)
    if inside:  # the rows are the fake's, which has no weights
        common += ["teacher.backend=vllm", f"teacher.model={model}", "teacher.replies=null"]
        common += ["evaluate.backend=vllm"]
    config = load(workshop / "config.yaml", [*common, *words])
    arms = re.findall(r"train\.arms\.(\w+)", options)  # the others are as in the default config
    arms = arms or (["kd"] if "kd" in config.train.arms else list(config.train.arms))
    runner.execute(train, config, ["init", *dict.fromkeys(arms)])
    for arm in arms:
        path = train.student_path(Path(config.run_dir), arm)
        assert load_weights(path, None, "auto").num_parameters() > 0


def test_the_page_has_recipes() -> None:
    """A new layout of the page would leave no recipe to run."""
    assert len(RECIPES) > 20


def test_flat_recipe_minimises_the_same_loss(workshop: Path) -> None:
    """The flat recipe must teach the loss that the pipeline minimises."""
    config = prepared(workshop)
    runner.execute(train, config, ["init"])
    losses = recipe.distil(Path(config.run_dir), workshop / "out", batch_size=64)
    assert losses == [pytest.approx(dense_loss(config, 0.5), rel=1e-4)]
    assert load_weights(str(workshop / "out"), None, "auto").config.vocab_size > 0


def test_flat_recipe_refuses_what_it_does_not_know(workshop: Path) -> None:
    """Ids of a trimmed vocabulary are other tokens."""
    config = prepared(workshop, "student.trim_vocabulary=true")
    runner.execute(train, config, ["init"])
    with pytest.raises(PipelineError, match="neither trimmed vocabularies nor scored rows"):
        recipe.distil(Path(config.run_dir), workshop / "out")
