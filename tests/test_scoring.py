"""Scores and intervals."""

import numpy as np
import pytest

from pipeline.scoring import bootstrap, exact, label, number, numeric

LABELS = ["spam", "normal"]


@pytest.mark.parametrize(
    ("answer", "value", "explanation"),
    [
        (" Spam. ", 1.0, "right label"),
        ("normal", 0.0, "is spam"),
        ("ham", 0.0, "not one of the labels: ham"),
        (None, 0.0, "no answer found"),
    ],
)
def test_label(answer: str | None, value: float, explanation: str) -> None:
    """Right, wrong, unparsable, empty."""
    score = label(answer, "spam", LABELS)
    assert (score.value, score.explanation) == (value, explanation)


@pytest.mark.parametrize(("answer", "value"), [("New  york", 1.0), ("Boston", 0.0), (None, 0.0)])
def test_exact(answer: str | None, value: float) -> None:
    """Case and spacing do not count."""
    assert exact(answer, "New York").value == value


@pytest.mark.parametrize(
    ("answer", "value"), [("$1,200.00", 1.0), ("so 1200 apples", 1.0), ("1201", 0.0), ("1200.0000001", 1.0), ("none", 0.0), (None, 0.0)]
)
def test_numeric(answer: str | None, value: float) -> None:
    """Currency, commas and words do not count; the number does."""
    assert numeric(answer, "1200").value == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-3.5", -3.5),
        ("3/4", 0.75),
        ("1,234,567", 1234567.0),
        ("from 2 to 9", 9.0),
        (".5", 0.5),
        ("\u22125", -5.0),
        ("1/0", None),
        ("", None),
        ("a, b", None),
    ],
)
def test_number(text: str, expected: float | None) -> None:
    """The last number of a text."""
    assert number(text) == expected


def test_bootstrap_interval_covers_like_the_normal_one() -> None:
    """For many items the percentile interval is the textbook one."""
    values = np.random.default_rng(0).binomial(1, 0.8, 400).astype(float).tolist()
    interval = bootstrap(values)
    error = 1.96 * np.std(values) / 20
    assert interval.mean == pytest.approx(np.mean(values))
    assert interval.low == pytest.approx(interval.mean - error, abs=0.006)
    assert interval.high == pytest.approx(interval.mean + error, abs=0.006)


def test_bootstrap_of_equal_values_is_a_point() -> None:
    """Two models that agree everywhere differ by exactly nothing."""
    interval = bootstrap([0.0] * 50)
    assert (interval.low, interval.mean, interval.high) == (0.0, 0.0, 0.0)
