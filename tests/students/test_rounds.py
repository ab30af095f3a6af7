"""Rounds of a deep cut, and what a cut removes."""

import itertools

import pytest

from pipeline.students.rounds import price, rounds
from tests.support.students import tiny


@pytest.mark.parametrize(
    ("total", "kept", "count", "sizes"),
    [
        (30, 20, None, [20]),  # a third at once
        (30, 15, None, [21, 15]),
        (30, 8, None, [22, 15, 11, 8]),
        (30, 8, 1, [8]),
        (30, 8, 2, [15, 8]),
        (4, 1, None, [3, 2, 1]),
        (4, 3, 9, [3]),  # no round without a layer to remove
    ],
)
def test_rounds_remove_about_a_third(
    total: int, kept: int, count: int | None, sizes: list[int]
) -> None:
    """A deep cut in one step is what healing in rounds is there to avoid."""
    assert [len(left) for left in rounds(total, range(kept), count)] == sizes


def test_rounds_are_nested_and_end_with_the_kept_layers() -> None:
    """A layer that a round removed cannot come back in the next one."""
    kept = [0, 1, 2, 5, 9, 14, 20, 29]
    stages = [list(range(30)), *rounds(30, kept, None)]
    assert stages[-1] == kept
    assert all(set(after) < set(before) for before, after in itertools.pairwise(stages))


def test_layers_in_another_order_are_cut_at_once() -> None:
    """Rounds that put layers into another order than keep_layers says."""
    assert rounds(6, [3, 1], None) == [[3, 1]]


def test_price_counts_layers_and_parameters() -> None:
    """A share of the depth alone hides the embeddings, which a cut keeps."""
    model = tiny("llama")
    layer = sum(weight.numel() for weight in model.model.layers[0].parameters())
    paid = price("m", model.config, [0, 3])
    assert (paid.layers, paid.total, paid.is_high) == (2, 4, True)
    assert paid.parameters == pytest.approx(2 * layer / model.num_parameters())
    assert str(paid).startswith("the cut removes 2 of 4 layers (50%) and ")
    assert not price("m", model.config, [0, 1, 3]).is_high
    assert model.config.num_hidden_layers == 4
