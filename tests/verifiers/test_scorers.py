"""Scorers: right, wrong and unreadable answers; and bootstrap intervals."""

import numpy as np
import pytest

from pipeline.evaluation.bootstrap import bootstrap
from pipeline.verifiers.scorers import exact, label, last_number, numeric

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
    ("answer", "value"),
    [
        ("$1,200.00", 1.0),
        ("so 1200 apples", 1.0),
        ("1201", 0.0),
        ("1200.0000001", 1.0),
        ("none", 0.0),
        (None, 0.0),
    ],
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
        ("36 m2", 36.0),
        ("12 cm^3", 12.0),
        ("36 g CO2", 36.0),
        ("9.8 m s^-2", 9.8),
        ("x_1", 1.0),
        ("USD36", 36.0),
        ("Rs.36", 36.0),
        ("\u6240\u4ee54\u52a03\u662f7\u4e2a", 7.0),
        ("1e5", 100000.0),
        ("3.0e8 m/s", 3e8),
        ("3 x 10^8 m/s", 3e8),
        ("2.5\u00d710^-3", 0.0025),
        ("1e999", None),
        ("1e99999", None),
        ("9" * 400, None),
        ("1 000", 1000.0),
        ("1\u202f234\u202f567.5", 1234567.5),
        ("1 2 3 100 200", 200.0),
        ("in 2024 300", 300.0),
        ("1 1/2", 1.5),
        ("-2 3/4 cups", -2.75),
        ("in 2024 3/4", 0.75),
        ("1 3/0", None),
        ("3/4/2024", 2024.0),
        ("1,2345", 2345.0),
        ("1 / 2", 0.5),
        ("from 2-9", -9.0),
        ("5 pounds/", 5.0),
        (" " * 200_000, None),
        ("1" + " " * 200_000, 1.0),
        ("." * 200_000, None),
        ("1 " * 100_000, 1.0),
    ],
)
def test_number(text: str, expected: float | None) -> None:
    """The last number of a text."""
    assert last_number(text) == expected


def test_bootstrap_interval_covers_like_the_normal_one() -> None:
    """For many items the percentile interval equals the textbook one."""
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
