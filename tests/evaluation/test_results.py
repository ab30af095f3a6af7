"""Repeats of an arm, and differences between groups of repeats."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Arm, load
from pipeline.evaluation.bootstrap import bootstrap, bootstrap_repeats
from pipeline.evaluation.pairs import methods_compared
from pipeline.evaluation.results import repeats, results
from pipeline.evaluation.results_model import Cost
from pipeline.evaluation.table import table
from pipeline.records import Score, Scored, Usage

COST = Cost(engine="none")


def answers(values: list[float]) -> list[Scored]:
    return [
        Scored(
            id=f"{number}",
            seed_id=f"n{number}",
            model="m",
            text="",
            finish_reason="stop",
            usage=Usage(prompt_tokens=1, completion_tokens=1),
            score=Score(value=value, explanation=""),
        )
        for number, value in enumerate(values)
    ]


def test_arms_that_differ_in_their_seed_alone_are_repeats() -> None:
    """An arm with another alpha or method must never be averaged in."""
    arms = {
        "kd-0": Arm(seed=0),
        "kd-1": Arm(seed=1),
        "kd": Arm(alpha=0.5),
        "a": Arm(method="sft"),
        "b": Arm(method="sft", seed=3),
        "few1": Arm(method="sft", limit=9),
    }
    assert repeats(arms) == {
        "kd-0": ["kd-0", "kd-1"],
        "kd": ["kd"],
        "a": ["a", "b"],
        "few1": ["few1"],
    }
    del arms["kd"]
    assert list(repeats(arms)) == ["kd", "a", "few1"]


def test_interval_over_repeats_is_the_textbook_one() -> None:
    """Its variance has a part of the items and one of the repeats, not that of I x R values."""
    random = np.random.default_rng(0)
    runs = random.normal(0, 1, 300)[None] + random.normal(0, 0.2, 40)[:, None]
    interval = bootstrap_repeats(runs)
    error = 1.96 * np.sqrt(runs.mean(0).var() / 300 + runs.mean(1).var() / 40)
    assert interval.mean == pytest.approx(runs.mean())
    assert interval.high - interval.low == pytest.approx(2 * error, rel=0.05)


def test_difference_over_repeats_is_paired_by_item() -> None:
    """Items that are hard for both models must not widen the interval of a difference."""
    items = np.random.default_rng(1).normal(0, 5, 200)
    gain = bootstrap_repeats(np.stack([items + 0.3, items + 0.1]), np.stack([items, items, items]))
    assert gain.mean == pytest.approx(0.2)
    assert 0.1 - 1e-9 <= gain.low <= gain.high <= 0.3 + 1e-9


def test_one_repeat_is_the_plain_bootstrap() -> None:
    """The figures of a run without repeats must not depend on the code for repeats."""
    first, second = np.random.default_rng(2).binomial(1, [[0.7], [0.5]], (2, 60)).astype(float)
    assert bootstrap_repeats(first[None], second[None]) == bootstrap((first - second).tolist())


def test_table_of_repeats(workshop: Path) -> None:
    """A difference between two repeats would be taken for one between two methods."""
    kds = "kd-0: {seed: 0}, kd-1: {seed: 1}"
    sfts = "sft-0: {method: sft, seed: 0}, sft-1: {method: sft, seed: 1}"
    config = load(workshop / "config.yaml", [f"train.arms={{{kds}, {sfts}}}"])
    values = {
        "teacher": [1.0, 1.0],
        "base": [0.0, 0.0],
        "kd-0": [1.0, 0.0],
        "kd-1": [1.0, 1.0],
        "sft-0": [0.0, 1.0],
        "sft-1": [0.0, 0.0],
    }
    found = results(config, {name: (answers(value), COST) for name, value in values.items()})
    assert found.repeats["kd"].each == [0.5, 1.0]
    assert list(found.differences) == [
        "kd - sft",
        "kd - base",
        "sft - base",
        "kd - teacher",
        "sft - teacher",
    ]
    assert found.differences["kd - sft"].mean == pytest.approx(0.5)
    assert "kd, mean of 2 repeats: 0.750" in table(found)


def test_without_repeats_nothing_is_said_of_them(workshop: Path) -> None:
    """Single arms must be compared as arms, and the table must not mention repeats."""
    config = load(workshop / "config.yaml")
    values = {"teacher": [1.0, 1.0], "base": [0.0, 0.0], "kd": [1.0, 0.0], "sft": [0.0, 0.0]}
    found = results(config, {name: (answers(value), COST) for name, value in values.items()})
    assert found.repeats == {}
    assert "repeats" not in table(found)
    assert "kd - sft: +0.500" in table(found)


def test_arms_of_unequal_training_are_not_compared_as_methods(workshop: Path) -> None:
    """An sft arm on a tenth of the rows made kd look like the better method."""
    sfts = "sft: {method: sft}, few: {method: sft, limit: 9, epochs: 3}, same: {epochs: 2}"
    config = load(workshop / "config.yaml", [f"train.arms={{kd: {{}}, {sfts}}}", "train.epochs=2"])
    names = ("teacher", "base", "kd", "sft", "few", "same")
    found = results(config, {name: (answers([1.0, 0.0] * 20), COST) for name in names})
    train = config.train.model_dump()
    assert methods_compared(found, train) == {
        "kd - sft": [],
        "kd - few": ["limit", "epochs"],
        "same - sft": [],
        "same - few": ["limit", "epochs"],
    }
    lines = table(found, train).splitlines()
    cautious = [line.split(":")[0] for line in lines if "not the method alone" in line]
    assert cautious == ["kd - few", "same - few"]


def test_few_examples_are_named_in_the_table(workshop: Path) -> None:
    """The table must not leave it to the reader to find two examples too few."""
    config = load(workshop / "config.yaml")
    names = ("teacher", "base", "kd", "sft")
    few, many = (
        table(results(config, {name: (answers([1.0] * count), COST) for name in names}))
        for count in (5, 6)
    )
    assert "(5 is too few held-out examples" in few
    assert "too few" not in many
