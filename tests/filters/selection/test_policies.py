"""Filters that choose: which rows they keep, that they repeat, and the value of a rejection."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.filters.measures import Batch
from pipeline.filters.selection import policies
from pipeline.filters.verdict import Verdict
from pipeline.records import Sample, Seed
from pipeline.storage.topk import TopKFolder
from tests.support.votes import ANSWERS, SEEDS, keys

Make = Callable[..., Sample]
CLASSES = keys(*"aaaaaabbc", None)
DRAWS = keys(*"0123456789")
ROWS = np.arange(10)


def test_classes_of_samples(sample: Make) -> None:
    """Examples without a group formed a group together."""
    grouped = sample(seed=Seed(id="x", inputs={}, group="g"))
    batch = Batch([grouped, sample()], TopKFolder(Path()))
    assert policies.class_keys(batch, "group").tolist() == keys("g", None).tolist()
    assert policies.class_keys(batch, "target").tolist() == keys(None, "yes").tolist()
    assert policies.draw_keys(batch).tolist() == keys("s0", "s0").tolist()


@pytest.mark.parametrize(
    ("cap", "kept"),
    [
        ({"factor": 1.0}, [1, 1, 1]),
        ({"factor": 3.0}, [3, 2, 1]),
        ({"number": 2}, [2, 2, 1]),
        ({"number": 5, "factor": 2.0}, [2, 2, 1]),
    ],
)
def test_balance(cap: dict[str, float], kept: list[int]) -> None:
    """A class lost rows below the cap; a row without a class must pass."""
    verdicts = policies.balance(ROWS, CLASSES, DRAWS, **cap)  # type: ignore[arg-type]
    rows = np.setdiff1d(ROWS, list(verdicts))
    assert [int((CLASSES[rows] == name).sum()) for name in keys("a", "b", "c")] == kept
    assert 9 in rows
    assert set(verdicts.values()) == {Verdict("over_balance", max(kept))}


def test_the_smallest_class_is_one_with_remaining_rows() -> None:
    """A class without remaining rows set the cap to nothing, and all rows were rejected."""
    verdicts = policies.balance(np.arange(8), CLASSES, DRAWS, factor=1.0)
    assert [row for row in range(6, 8) if row in verdicts] == []
    assert len(verdicts) == 4


def test_balance_keeps_the_best() -> None:
    """The best scores stay, nan goes first; without scores the random seed decides."""
    scores = np.array([0.1, 0.9, np.nan, 0.5, 0.7, 0.3, 0, 0, 0, 0], np.float32)
    assert sorted(policies.balance(ROWS, CLASSES, DRAWS, scores, number=3)) == [0, 2, 5]
    drawn = [
        sorted(policies.balance(ROWS, CLASSES, DRAWS, number=3, seed=seed))
        for seed in (0, 0, 1, 2, 3)
    ]
    assert drawn[0] == drawn[1]
    assert len(set(map(tuple, drawn))) > 1


def test_draws_depend_on_the_sample_not_on_its_row() -> None:
    """A changed order of rows changed which samples were drawn."""
    order = np.random.default_rng(0).permutation(10)
    rejected = policies.cap_rows(ROWS, DRAWS, number=4, seed=7)
    reordered = policies.cap_rows(ROWS, DRAWS[order], number=4, seed=7)
    assert sorted(rejected) == sorted(order[list(reordered)])


def test_balance_without_a_cap_is_refused() -> None:
    """A filter without a cap did nothing, and its report looked as if it had worked."""
    with pytest.raises(PipelineError, match=r"filter\.balance: has neither factor nor number"):
        policies.balance(ROWS, CLASSES, DRAWS)
    assert policies.balance(np.arange(0), CLASSES, DRAWS) == {}


def test_difficulty_by_votes() -> None:
    """Samples of one example must be kept or rejected together; without answers they pass."""
    verdicts = policies.bound_vote_difficulty(np.arange(7), SEEDS, ANSWERS, lowest=0.6, highest=0.9)
    assert verdicts == dict.fromkeys([4, 5], Verdict("too_hard", 0.5))
    easy = policies.bound_vote_difficulty(np.arange(7), SEEDS, ANSWERS, highest=0.7)
    assert easy == dict.fromkeys(range(4), Verdict("too_easy", 0.75))


def test_difficulty_by_loss() -> None:
    """A high loss is hard, unlike a high share of votes; an unknown loss must pass."""
    loss = np.array([0.1, 1.0, 5.0, np.nan])
    verdicts = policies.bound_difficulty(np.arange(4), loss, lowest=0.5, highest=2.0, easy="low")
    assert verdicts == {0: Verdict("too_easy", 0.1), 2: Verdict("too_hard", 5.0)}
    assert policies.bound_difficulty(np.arange(4), loss, lowest=0.1, highest=5.0, easy="low") == {}


def test_budget() -> None:
    """The best rows stay; the value is the rejected score, or the budget without scores."""
    scores = np.arange(10, dtype=np.float32)
    assert policies.cap_rows(ROWS[2:], DRAWS, scores, number=6) == {
        2: Verdict("over_budget", 2.0),
        3: Verdict("over_budget", 3.0),
    }
    drawn = policies.cap_rows(ROWS, DRAWS, number=6)
    assert len(drawn) == 4
    assert set(drawn.values()) == {Verdict("over_budget", 6)}
    assert policies.cap_rows(ROWS, DRAWS, number=10) == {}


def test_seed_budget() -> None:
    """Examples with fewer samples than the budget lost some."""
    scores = np.array([1, 3, 2, 0, 5, 6, 7], np.float32)
    verdicts = policies.cap_rows_per_seed(np.arange(7), SEEDS, DRAWS[:7], scores, number=2)
    assert verdicts == {0: Verdict("over_seed_budget", 1.0), 3: Verdict("over_seed_budget", 0.0)}


def test_k_centers_cover_every_cluster() -> None:
    """Points on a line, by hand: the point farthest from all chosen ones comes next."""
    line = np.array([[0.0], [1.0], [10.0], [11.0], [4.0]], np.float16)
    taken, distances = policies.k_centers(line, first=0, number=3)
    assert taken.tolist() == [0, 3, 4]
    assert distances.tolist() == [0, 1, 1, 0, 0]
    assert policies.k_centers(line, first=0, number=5, min_distance=3.0)[0].tolist() == [0, 3, 4]


def test_k_centers_is_greedy_in_blocks() -> None:
    """Choices are those of the plain definition, also with rows widened in blocks."""
    points = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float16)
    pairwise = np.linalg.norm(
        points[:, None].astype(np.float32) - points[None].astype(np.float32), axis=2
    )
    expected = [3]
    while len(expected) < 10:
        expected.append(int(pairwise[expected].min(axis=0).argmax()))
    taken, distances = policies.k_centers(points, 3, 10)
    assert taken.tolist() == expected
    assert distances == pytest.approx(pairwise[expected].min(axis=0), abs=1e-2)
    blocked, _ = policies.k_centers(points, 3, 10, block=7, max_float32_bytes=0)
    assert blocked.tolist() == expected


def test_diverse() -> None:
    """A copy was kept beside its original; rejected rows must not count as neighbours."""
    points = np.array([[5, 5], [0, 0], [0, 0], [1, 0], [0, 9]], np.float16)
    copies = policies.diversify(np.arange(1, 5), points, DRAWS[:5])
    assert set(copies.values()) == {Verdict("too_alike", 0.0)}
    assert len(copies) == 1
    assert copies.keys() <= {1, 2}
    near = policies.diversify(np.arange(1, 5), points, DRAWS[:5], min_distance=2.0)
    assert {verdict.reason for verdict in near.values()} == {"too_alike"}
    assert len(near) == 2
    assert len(policies.diversify(np.arange(5), points, DRAWS[:5], number=2)) == 3
    assert policies.diversify(np.arange(0), points, DRAWS[:5]) == {}
