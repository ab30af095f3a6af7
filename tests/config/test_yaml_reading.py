"""YAML as people mean it, and files that are made to break readers."""

import pytest

from pipeline.config.yaml_reading import MOST_VALUES, parse

BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("-08", -8),
        ("0o10", 8),
        ("0x1F", 31),
        ("1_000", 1000),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("1e-5", 1e-5),
        ("09.50", 9.5),
        ("+.5", 0.5),
        ("1.2.3", "1.2.3"),
    ],
)
def test_numbers_as_people_mean_them(text: str, value: object) -> None:
    """YAML 1.1 reads 010 as eight and 1:30 as ninety."""
    found = parse(f"key: {text}")["key"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "the key 'a' is given twice.* line 3"),
        ("x:\n  - {b: 1, b: 2}", "the key 'b' is given twice.* line 2"),
        ("a: .inf", "inf is no number"),
        ("a: [1e999]", "inf is no number"),
        ("a: .nan", "nan is no number"),
        (f"a: {10**23}", "the number 10+ is too large"),
        (BOMB, f"more than {MOST_VALUES:,} values"),
        ("a: &a [*a]", "deep"),
        ("a: " + "[" * 1000 + "]" * 1000, "deep"),
        ("a: " + "{b: " * 100 + "1" + "}" * 100, "deep"),
        ('a: "x\\0.md"', "has a character that no file may have"),
        ("a: [1", "line 1"),
    ],
)
def test_what_no_config_means_is_one_line(text: str, message: str) -> None:
    """The last of two keys won in silence; a file of 1 kB took all memory or a traceback."""
    with pytest.raises(ValueError, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_merged_keys_may_be_overridden() -> None:
    """A merge key gives defaults, so a key beside it is no repetition."""
    text = "base: &base {x: 1, y: 1}\nown: {<<: *base, x: 2}"
    assert parse(text)["own"] == {"x": 2, "y": 1}
