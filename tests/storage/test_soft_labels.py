"""Soft labels: filter writes them, train learns from them."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import Config, load
from pipeline.data import prompts
from pipeline.data.encoding import Encoder
from pipeline.errors import PipelineError
from pipeline.execution import manifest, runner
from pipeline.execution.contract import Job
from pipeline.losses.distillation import Objective, Teacher, distillation_loss
from pipeline.models.fake import TOKENIZER
from pipeline.models.tokenizer import Tokenizer
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate, train
from pipeline.storage.files import read_json, write_json
from pipeline.storage.samples import Samples
from pipeline.storage.soft_labels import SoftLabels, write
from pipeline.storage.topk import TopK, TopKFolder
from pipeline.training import fit
from pipeline.training.collation import Frames

REPLY = "teacher.replies=[' perhaps']"
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
    """The labels must be written without the filter being set, reject nothing, and reach the loss:
    an arm with them has another loss than one without."""
    counts = manifest.read_manifest(Path(config.run_dir), "filter")["counts"]
    assert counts["calibration"]["rows"] == counts["samples"] - sum(
        v for k, v in counts["rejected"].items() if not k.startswith("dup")
    )
    assert not [reason for reason in counts["rejected"] if reason.startswith("calibrated")]
    runner.execute(train, config)
    plain = load(
        Path(config.run_dir).parent / "config.yaml",
        [SOFT[0], "train.arms={kd: {soft_labels: false, alpha: 0.0}}", "train.epochs=1"],
    )
    losses = [_first_loss(config)]
    (Path(config.run_dir) / "train" / "kd").rename(Path(config.run_dir) / "train" / "soft")
    runner.execute(train, plain, ["init", "kd"])
    assert abs(losses[0] - _first_loss(plain)) > 1e-4


@pytest.mark.parametrize(("is_strong", "learned"), [(True, True), (False, False)])
def test_left_open_they_are_learned_under_a_strong_bias(
    config: Config, is_strong: bool, learned: bool
) -> None:
    """Without a strong bias, calibration moves right answers from common labels to rare ones."""
    path = Path(config.run_dir) / "filter" / "manifest.json"
    content = read_json(path)
    content["counts"]["calibration"]["is_strong"] = is_strong
    write_json(path, content)
    open_arm = load(Path(config.run_dir).parent / "config.yaml", ["train.arms={kd: {}}"])
    job = Job(open_arm, "train", "kd", Path(config.run_dir) / "train" / "kd")
    assert (fit.soft_labels(job) is not None) == learned


def test_answers_without_a_label_do_not_stop_the_filter(workshop: Path) -> None:
    """Nobody asked for calibration, so it must not refuse a run whose answers hold no label."""
    config = load(
        workshop / "config.yaml",
        ["filter.correct=false", "filter.duplicate=false", "filter.parseable=false", REPLY],
    )
    for module in (generate, filter_stage):
        runner.execute(module, config)
    counts = manifest.read_manifest(Path(config.run_dir), "filter")["counts"]
    assert counts["kept"] == counts["samples"]
    assert not counts["calibration"]["is_strong"]


def test_the_written_token_is_no_target_beside_a_soft_label() -> None:
    """Half of the loss would teach the label that calibration has just replaced."""
    hidden, head = torch.randn(2, 5, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)
    labels = torch.tensor([1, 2])
    teacher = Teacher(
        ids=torch.tensor([[1, 3], [2, 4]]),
        logprobs=torch.tensor([[0.2, 0.8], [0.5, 0.5]]).double().log(),
        tail=torch.full((2,), -torch.inf).double(),
        exact=torch.tensor([2, 2]),
        known=torch.tensor([True, True]),
    )
    kd, half = Objective(alpha=0.0), Objective(alpha=0.5)
    soft = replace(teacher, alpha=torch.tensor([0.0, torch.nan]))
    found = distillation_loss(hidden, head, labels, half, soft).total
    first = distillation_loss(hidden[:1], head, labels[:1], kd, teacher.at(slice(0, 1))).total
    second = distillation_loss(hidden[1:], head, labels[1:], half, teacher.at(slice(1, 2))).total
    assert found == pytest.approx(float(first + second))


def test_without_soft_labels_the_arm_says_what_to_do(config: Config) -> None:
    """The filter may have run before its option was set."""
    (Path(config.run_dir) / "filter" / "kept" / "soft_labels.npz").unlink()
    with pytest.raises(PipelineError, match=re.escape("run the filter with filter.calibrated={}")):
        SoftLabels.read(Path(config.run_dir) / "filter" / "kept")


def _first_loss(config: Config) -> float:
    lines = (Path(config.run_dir) / "train" / "kd" / "history.jsonl").read_text().splitlines()
    return float(json.loads(lines[0])["loss"])


def test_alphas_of_answers_and_soft_labels(workshop: Path) -> None:
    """A closed answer is learned by its text; a soft label, that replaces it, by its
    probabilities."""
    config = load(workshop / "config.yaml", ["filter.correct=false"])
    for module in (generate, filter_stage):
        runner.execute(module, config)
    kept = Path(config.run_dir) / "filter" / "kept"
    sample = Samples(kept)[0]
    prompt = prompts.load(config.train.prompt)
    examples = Encoder(Tokenizer(str(TOKENIZER)), prompt, True).encode_sample(sample)
    assert sample.answer_tokens is not None
    start, end = examples[0].answer
    assert (start, end) == tuple(sample.answer_tokens)
    tokens = np.arange(end + 1)
    sources = np.zeros(len(tokens), np.int64)
    folder = TopKFolder(Path(config.run_dir) / "generate")
    alphas = Frames(folder, examples, learns_answers=True).alphas(sources, tokens)
    assert np.flatnonzero(alphas == 1.0).tolist() == list(range(start, end))
    assert np.isnan(alphas[end])
    soft = Frames(folder, examples, soft=SoftLabels.read(kept), learns_answers=True)
    assert soft.alphas(sources, tokens)[start] == 0.0
