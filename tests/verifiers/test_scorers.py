"""Scorers: right, wrong and unreadable answers; and bootstrap intervals."""

import numpy as np
import pytest

from pipeline.errors import UnknownError
from pipeline.evaluation.bootstrap import bootstrap, bootstrap_repeats
from pipeline.verifiers.numbers import last_number
from pipeline.verifiers.scorers import exact, find_label, label, normalise, numeric

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
        ("1,2345", 1.2345),
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
    assert as_float(text) == expected


def as_float(text: str) -> float | None:
    """Return the last number as a float; None if there is none, or it is not finite."""
    number = last_number(text)
    try:
        return float(number.value) if number and number.value is not None else None
    except OverflowError:
        return None


@pytest.mark.parametrize(
    ("answer", "target", "value"),
    [
        (r"\frac{1}{4}", "4", 0.0),
        (r"\frac{1}{4}", "0.25", 1.0),
        (r"\boxed{\frac{3}{4}}", "0.75", 1.0),
        (r"-\dfrac{3}{4}", "-0.75", 1.0),
        (r"2\tfrac12", "2.5", 1.0),
        (r"\boxed{$9{,}500}", "9500", 1.0),
        (r"$9{,}500", "500", 0.0),
        (r"9\,500", "9500", 1.0),
        (r"3 \times 10^{8}", "3e8", 1.0),
        (r"2^{10}", "10", 0.0),
        (r"\sqrt{16}", "16", 0.0),
    ],
)
def test_numbers_in_latex(answer: str, target: str, value: float) -> None:
    """The denominator, or what stands behind {,}, was once the number."""
    assert numeric(answer, target).value == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0,75", 0.75),
        ("3,5", 3.5),
        ("3,14159", 3.14159),
        ("0,123", 0.123),
        ("1.234,56", 1234.56),
        ("1 234,56", 1234.56),
        ("1.234.567", 1234567.0),
        ("1'234.50", 1234.5),
        ("12,34,567", 1234567.0),
        ("1,234", 1234.0),
        ("1,234,567.89", 1234567.89),
        ("1,2,3", 3.0),
        ("1.5 million", 1.5e6),
        ("1,5 Millionen", 1.5e6),
        ("$5k", 5000.0),
        ("5 km", 5.0),
        ("3 lakh", 3e5),
        ("2\u00bd", 2.5),
        ("\u00bc", 0.25),
        ("10\u00b2\u00b3", 1e23),
        ("5 m\u00b2", 5.0),
        ("\uff11\uff12", 12.0),
        ("\u0661\u0662\u066b\u0665", 12.5),
        ("-$5", -5.0),
        ("\u20135", -5.0),
    ],
)
def test_numbers_as_the_world_writes_them(text: str, value: float) -> None:
    """A decimal comma once made 75 of 0,75, and 1.5 million was 1.5."""
    assert as_float(text) == value


@pytest.mark.parametrize(
    ("answer", "target", "value"),
    [
        ("at 12:30", "12:30", 1.0),
        ("11:30", "12:30", 0.0),
        ("12:30", "30", 0.0),
        ("2:30 pm", "14:30", 1.0),
        ("6:4", "3:2", 1.0),
        ("3:2", "2", 0.0),
        ("March 5, 2024", "2024-03-05", 1.0),
        ("5.3.2024", "2024-03-05", 1.0),
        ("March 6, 2024", "March 5, 2024", 0.0),
        ("2024-03-05", "5", 0.0),
    ],
)
def test_times_and_dates_are_compared_whole(answer: str, target: str, value: float) -> None:
    """The minutes of a time, or the year of a date, were once enough."""
    assert numeric(answer, target).value == value


@pytest.mark.parametrize(
    ("answer", "target", "value"),
    [
        ("9007199254740993", "9007199254740992", 0.0),
        ("99999999999999999999", "99999999999999999998", 0.0),
        ("9" * 400, "9" * 400, 1.0),
        ("9" * 400, "9" * 399 + "8", 0.0),
        ("1e-10", "2e-10", 0.0),
        ("1.0000000001e-10", "1e-10", 1.0),
        ("1e-10", "0", 0.0),
    ],
)
def test_numbers_are_exact(answer: str, target: str, value: float) -> None:
    """Large whole numbers were compared as floats, and tiny ones were all equal."""
    assert numeric(answer, target).value == value


def test_an_unreadable_target_makes_no_answer_wrong() -> None:
    """A target that is no number or no label says nothing about the answer."""
    with pytest.raises(UnknownError, match="no number in the target: see the appendix"):
        numeric("4", "see the appendix")
    with pytest.raises(UnknownError, match=r"not one of the labels: Spam \(sure\)"):
        label("spam", "Spam (sure)", LABELS)


@pytest.mark.parametrize(
    ("answer", "target", "value"),
    [
        ("cafe\u0301", "caf\u00e9", 1.0),
        ("\u5df4\u9ece\u3002", "\u5df4\u9ece", 1.0),
        ("\u22125", "-5", 1.0),
        ("\uff30aris", "Paris", 1.0),
        ("it\u2019s", "it's", 1.0),
        ("\u201cParis\u201d", "Paris", 1.0),
        ("\u00abParis\u00bb", "Paris", 1.0),
        ("Pa\u200bris", "Paris", 1.0),
        ("\ufb01ne", "fine", 1.0),
        ("**Paris**", "Paris", 1.0),
        ("Paris**", "Paris", 1.0),
        ("** Paris", "Paris", 1.0),
        ("`Paris`.", "Paris", 1.0),
        ("Paris!", "Paris", 1.0),
        ("x\u00b2", "x2", 0.0),
        (".5", "5", 0.0),
        ("5!", "5", 0.0),
        ("n!", "n", 0.0),
        ("a*", "a", 0.0),
        (".NET", "NET", 0.0),
        ("?", "!", 0.0),
        ("-5", "5", 0.0),
    ],
)
def test_one_text_in_several_encodings(answer: str, target: str, value: float) -> None:
    """Encodings and outer punctuation do not count, punctuation that is part of the text does."""
    assert exact(answer, target).value == value


@pytest.mark.parametrize(
    ("labels", "text", "expected"),
    [
        (["*", "**", "***"], "**", "**"),
        (["!", "?"], "!", "!"),
        (["!", "?"], ".", None),
        (["yes", "yes!"], "Yes!", "yes!"),
        (["yes", "yes!"], "Yes.", "yes"),
        (["spam", "normal"], "spam*", "spam"),
        (["caf\u00e9", "bar"], "CAFE\u0301", "caf\u00e9"),
        (["+1", "-1"], "\u22121", "-1"),
        (["\u2764\ufe0f", "\U0001f44d"], "\u2764", "\u2764\ufe0f"),
        (["C", "C++", "C#"], "c++", "C++"),
        (["a*", "a**"], "a", None),
    ],
)
def test_labels_that_differ_in_punctuation(
    labels: list[str], text: str, expected: str | None
) -> None:
    """Two labels that differ in punctuation alone were once one, and every answer was right."""
    assert find_label(text, labels) == expected


def test_normalising_takes_linear_time() -> None:
    """A long run of marks once took quadratic time in patterns such as these."""
    for mark in (" ", ".", "*", "!", "'\"", "`", "\\frac{", "\\sqrt[", "-", "="):
        normalise(mark * 50_000 + "x" + mark * 50_000)
        last_number(mark * 50_000 + "1" + mark * 50_000)


def test_bootstrap_interval_covers_like_the_normal_one() -> None:
    """For many items the percentile interval equals the textbook one."""
    values = np.random.default_rng(0).binomial(1, 0.8, 400).astype(float).tolist()
    interval = bootstrap(values)
    error = 1.96 * np.std(values) / 20
    assert interval.mean == pytest.approx(np.mean(values))
    assert interval.low == pytest.approx(interval.mean - error, abs=0.006)
    assert interval.high == pytest.approx(interval.mean + error, abs=0.006)


def test_bootstrap_of_equal_values_is_no_point() -> None:
    """Fifty wrong answers out of fifty do not show that every answer is wrong (Wilson 1927)."""
    interval = bootstrap([0.0] * 50)
    assert (interval.low, interval.mean) == (0.0, 0.0)
    assert interval.high == pytest.approx(1.959964**2 / (50 + 1.959964**2), abs=1e-4)


def test_models_that_agree_everywhere_do_not_differ() -> None:
    """The difference of two equal models is 0, with an interval around it."""
    answers = np.ones((1, 50))
    interval = bootstrap_repeats(answers, answers)
    assert interval.mean == 0.0
    assert -0.06 < interval.low < 0.0 < interval.high < 0.06


def test_whole_number_of_a_float_column() -> None:
    """pandas writes a column of labels with one gap as 1.0 and 0.0; every answer was wrong."""
    assert exact("1", "1.0").value == 1.0
    assert exact("1.0.", "1").value == 1.0
    assert label("1.0", "1", ["0", "1"]).value == 1.0
    assert find_label("1.0", ["1", "1.0"]) == "1.0"
    assert exact("1.1", "1.10").value == exact("007", "7").value == 0.0
    assert exact("1.0.0", "1").value == 0.0
