"""Soft labels: filter writes them, train learns from them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Config, load
from pipeline.config.filter import Calibrated
from pipeline.errors import PipelineError
from pipeline.execution import manifest, runner
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate, train
from pipeline.storage.soft_labels import SoftLabels, write
from pipeline.storage.topk import TopK

SOFT = ["filter.correct=false", "train.arms={kd: {soft_labels: true, alpha: 0.0}}"]


def topk() -> TopK:
    """Return two tokens; the second has the written 7, an exact 8, a draw and a tail."""
    ids = np.array([[3, 0, 0], [7, 8, 9]], np.int64)
    logprobs = np.log(
        np.array([[1.0, 0, 0], [0.6, 0.2, 0.1]], np.float32),
        where=np.array([[True, False, False], [True] * 3]),
    )
    logprobs[0, 1:] = -np.inf
    return TopK(
        ids,
        logprobs.astype(np.float32),
        np.array([-np.inf, np.log(0.1)], np.float32),
        np.array([1, 2]),
    )


def test_the_labels_token_is_replaced() -> None:
    """The written token gets its own label's probability, whichever label is most likely."""
    soft = SoftLabels(
        np.array([20, 21, 22, 23]),
        {"a/0": (1, 2, np.log(np.array([0.1, 0.2, 0.3, 0.4], np.float32)))},
    )
    found = soft.topk("a/0", topk())
    assert found.ids[1].tolist() == [7, 20, 21, 23]
    assert np.allclose(np.exp(found.logprobs[1]), [0.3, 0.1, 0.2, 0.4])
    assert (found.tail[1], found.exact[1]) == (-np.inf, 4)
    assert found.ids[0].tolist() == [3, 0, 0, 0]
    assert np.isneginf(found.logprobs[0, 1:]).all()


def test_a_sample_without_a_readable_label_stays(tmp_path: Path) -> None:
    """A row of nan must not become a distribution."""
    logprobs = np.log(np.array([[0.5, 0.5], [np.nan, np.nan], [0.9, 0.1]], np.float32))
    write(
        tmp_path,
        np.array([4, 5]),
        ["a", "b", "c"],
        np.array([[0, 1], [0, 0], [-1, -1]], np.int32),
        logprobs,
    )
    soft = SoftLabels.read(tmp_path)
    assert list(soft.by_sample) == ["a"]
    plain = topk()
    assert soft.topk("b", plain) is plain


@pytest.fixture
def config(workshop: Path) -> Config:
    found = load(workshop / "config.yaml", [*SOFT, "train.epochs=1"])
    for one in (generate, filter_stage):
        runner.execute(one, found)
    return found


def test_an_arm_learns_from_them(config: Config) -> None:
    """The one switch must have the labels written, reject nothing, and reach the loss: an arm with
    it has another loss than one without."""
    counts = manifest.read_manifest(Path(config.run_dir), "filter")["counts"]
    assert counts["calibration"]["rows"] == counts["samples"] - sum(
        v for k, v in counts["rejected"].items() if not k.startswith("dup")
    )
    assert not [reason for reason in counts["rejected"] if reason.startswith("calibrated")]
    runner.execute(train, config)
    given = "filter.calibrated={agree: false, shares: written}"
    plain = load(
        Path(config.run_dir).parent / "config.yaml",
        [SOFT[0], given, "train.arms={kd: {alpha: 0.0}}", "train.epochs=1"],
    )
    losses = [_first_loss(config)]
    (Path(config.run_dir) / "train" / "kd").rename(Path(config.run_dir) / "train" / "soft")
    runner.execute(train, plain, ["init", "kd"])
    assert abs(losses[0] - _first_loss(plain)) > 1e-4


def test_the_switch_leaves_other_filters_as_they_are(workshop: Path) -> None:
    """Settings of the user's own must win, and a config without the switch must keep its
    fingerprint."""
    given = "filter.calibrated={min_confidence: 0.8}"
    for options, expected in (
        (SOFT, Calibrated(agree=False, shares="written")),
        ([*SOFT, given], Calibrated(min_confidence=0.8)),
        ([], None),
    ):
        settings = load(workshop / "config.yaml", options).filter
        assert settings.calibrated == expected
        assert settings.duplicate == load(workshop / "config.yaml").filter.duplicate


def test_without_soft_labels_the_arm_says_what_to_do(config: Config) -> None:
    """The filter may have run before its option was set."""
    (Path(config.run_dir) / "filter" / "kept" / "soft_labels.npz").unlink()
    with pytest.raises(PipelineError, match=re.escape("run the filter with filter.calibrated={}")):
        SoftLabels.read(Path(config.run_dir) / "filter" / "kept")


def _first_loss(config: Config) -> float:
    lines = (Path(config.run_dir) / "train" / "kd" / "history.jsonl").read_text().splitlines()
    return float(json.loads(lines[0])["loss"])
