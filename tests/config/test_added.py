"""Added keys: a run that was started before a key existed must continue."""

import pytest

from pipeline.execution import fingerprint


@pytest.mark.parametrize(
    ("key", "value", "changed"),
    [
        ("train.arms.kd.hidden", "null", []),
        ("train.arms.kd.hidden.weight", "1.0", ["train.arms.kd.hidden.weight: (absent) -> 1.0"]),
        ("train.arms.kd.alpha", "null", ["train.arms.kd.alpha: (absent) -> null"]),
        ("file hidden", "null", ["file hidden: (absent) -> null"]),
    ],
)
def test_only_the_neutral_value_of_an_added_key_is_no_difference(
    key: str, value: str, changed: list[str]
) -> None:
    """Old runs were refused as soon as a key was added, although it was turned off."""
    old = {"train.arms.kd.method": '"kd"'}
    lines = fingerprint.differing(old, {**old, key: value})
    assert [line.strip() for line in lines] == changed
    assert bool(fingerprint.differing({**old, key: value}, old)) == bool(changed)
