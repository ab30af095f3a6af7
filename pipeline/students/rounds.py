"""How deep a cut is, and the rounds of cutting that lead to it."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pipeline.config import Config
from pipeline.students import layers
from pipeline.students.checks import meta_model

AT_ONCE = 3  # published recipes remove at most one in three layers at once


@dataclass(frozen=True)
class Price:
    """What a cut removes: layers, and the share of all parameters."""

    layers: int
    total: int
    parameters: float

    @property
    def is_high(self) -> bool:
        """Return True if the cut is deeper than published recipes go at once."""
        return AT_ONCE * self.layers > self.total

    def __str__(self) -> str:
        return (
            f"the cut removes {self.layers} of {self.total} layers ({self.layers / self.total:.0%})"
            f" and {self.parameters:.0%} of the parameters"
        )


def warning(config: Config, price: Price) -> str | None:
    """Return what to do about a cut that is too deep to be trained without healing, or None."""
    if not price.is_high or config.student.heal:
        return None
    return (
        f"student: {price}; published recipes cut at most a third at once, and a deeper cut "
        "seldom recovers in training: keep the whole model (leave layers and keep_layers out), or "
        "heal the cut with student.heal={}"
    )


def price(name: str, model_config: Any, kept: Sequence[int]) -> Price:
    """Return the price of keeping only these layers of a model, from its config alone."""
    model = meta_model(deepcopy(model_config))  # it is cut with its config
    total, before = len(layers.layers_of(model, name)), model.num_parameters()
    layers.keep(model, name, kept)
    return Price(total - len(kept), total, 1 - model.num_parameters() / before)


def rounds(total: int, kept: Sequence[int], count: int | None) -> list[list[int]]:
    """Return the layers that are left after each round of cutting; the last round's are `kept`.

    Every round removes about the same share. What it removes is spread evenly over the layers that
    the last round removes, too.

    Args:
        total: layers of the whole model.
        count: number of rounds. None: the fewest that remove about a third each. There is one if
            `kept` is not in rising order.
    """
    if list(kept) != sorted(kept):
        return [list(kept)]
    sizes = _sizes(total, len(kept), count)
    left = list(range(total))
    result = []
    for size in sizes:
        removable = [layer for layer in left if layer not in kept]
        places = _spread(len(removable), len(left) - size)
        removed = {removable[place] for place in places}
        left = [layer for layer in left if layer not in removed]
        result.append(left)
    return result


def _sizes(total: int, target: int, count: int | None) -> list[int]:
    """Return the number of layers after each round, in falling order."""
    steps = min(count or _fewest(total, target), max(total - target, 1))
    ratio = target / total
    sizes = [round(total * ratio ** (number / steps)) for number in range(1, steps + 1)]
    return list(dict.fromkeys(sizes))


def _fewest(total: int, target: int) -> int:
    """Count the rounds that remove at most a third each, or one layer."""
    count, left = 0, total
    while left > target:
        left -= max(1, left // AT_ONCE)
        count += 1
    return max(count, 1)


def _spread(total: int, count: int) -> list[int]:
    """Return `count` indices below `total`, in the middle of as many equal parts."""
    return [(2 * number + 1) * total // (2 * count) for number in range(count)]
