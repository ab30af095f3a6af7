"""Label-bias calibration: reading the labels' probabilities, dividing the bias out, and saying so where neither can be done."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.filters.confidence import label_calibration
from pipeline.filters.measures import Batch
from pipeline.filters.verdict import Verdict
from pipeline.models.fake import TOKENIZER
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Sample
from pipeline.storage.topk import TopKFolder
from tests.support.frames import Distribution, framed

Make = Callable[..., Sample]
LABELS = ["yes", "no"]
TOKENS = [[10, 11], [20]]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """One token a byte."""
    return Tokenizer(str(TOKENIZER))


def pieces(tokenizer: Tokenizer, tokens: list[list[int]]) -> list[list[str]]:
    return [[tokenizer.decode([token]) for token in mine] for mine in tokens]


def test_label_tokens(tokenizer: Tokenizer) -> None:
    """Other cases of a label are the label, too; the label as it stands comes first."""
    assert pieces(
        tokenizer, label_calibration.label_tokens(tokenizer, ["yes", "No"], "Answer: ")
    ) == [["y", "Y"], ["N", "n"]]


def test_label_tokens_walk_on_behind_what_all_labels_share(tokenizer: Tokenizer) -> None:
    """The first token of "class a" and "class b" tells nothing."""
    assert pieces(tokenizer, label_calibration.label_tokens(tokenizer, ["class a", "class b"])) == [
        ["a", "A"],
        ["b", "B"],
    ]


@pytest.mark.parametrize("labels", [["spam", "sport", "normal"], ["yes", "yes please"]])
def test_labels_that_begin_alike_are_refused(tokenizer: Tokenizer, labels: list[str]) -> None:
    """One label's probability would be counted as another's."""
    with pytest.raises(
        PipelineError,
        match=r"begins with the same token as another one.*give them names that begin differently",
    ):
        label_calibration.label_tokens(tokenizer, labels)


def read(folder: Path, sample: Sample, *tokens: Distribution) -> list[float]:
    samples, frames = framed(folder, [sample], [tokens])
    return label_calibration.label_distribution(Batch(samples, frames), TOKENS)[0].tolist()


def test_the_mass_of_a_label_is_that_of_its_variants(sample: Make, tmp_path: Path) -> None:
    """What stands in front of the answer, and tokens of no label, do not count."""
    found = read(
        tmp_path,
        sample(answer_tokens=(1, 3)),
        [(20, 1.0)],
        [(10, 0.5), (20, 0.25), (11, 0.15), (99, 0.1)],
        [(20, 1.0)],
    )
    assert found == pytest.approx([0.65, 0.25], abs=0.02)


def test_the_answer_is_read_at_its_first_telling_token(sample: Make, tmp_path: Path) -> None:
    """A quotation mark, or what all labels begin with, is passed over."""
    assert read(
        tmp_path, sample(answer_tokens=(0, 2)), [(99, 0.9), (20, 0.1)], [(20, 0.7), (10, 0.3)]
    ) == pytest.approx([0.3, 0.7], abs=0.02)


def test_a_label_that_is_not_stored_is_less_likely_than_what_is(
    sample: Make, tmp_path: Path
) -> None:
    """Zero would be certainty, all of the tail more than it can have."""
    assert read(tmp_path, sample(answer_tokens=(0, 1)), [(10, 0.9)]) == pytest.approx(
        [0.9, 0.1], abs=0.02
    )
    assert read(tmp_path, sample(answer_tokens=(0, 1)), [(10, 0.5), (99, 0.2)]) == pytest.approx(
        [0.5, 0.2], abs=0.02
    )


def test_an_answer_that_cannot_be_read_is_nan(sample: Make, tmp_path: Path) -> None:
    """No answer, and an answer that begins like no label."""
    assert np.isnan(read(tmp_path, sample(), [(10, 0.9)])).all()
    assert np.isnan(read(tmp_path, sample(answer_tokens=(0, 1)), [(99, 0.5), (10, 0.5)])).all()


def test_samples_without_frames_are_refused(sample: Make) -> None:
    """There is nothing to calibrate in text."""
    with pytest.raises(PipelineError, match=r"filter\.calibrated: sample s0 has no logprobs"):
        label_calibration.label_distribution(Batch([sample()], TopKFolder(Path())), TOKENS)


def test_labels_are_read_as_they_are_scored(sample: Make) -> None:
    """Case and punctuation aside; what is no label, or not there, has no number."""
    batch = Batch(
        [sample(answer="No."), sample(answer="maybe"), sample(answer=None)], TopKFolder(Path())
    )
    assert label_calibration.written_label(batch, LABELS).tolist() == [1, -1, -1]
    assert label_calibration.true_label(batch, LABELS).tolist() == [0, 0, 0]


def test_batch_calibration() -> None:
    """By hand: rows are normalised, divided by their mean, normalised again; nan and a label that nothing is for do no harm."""
    p = np.array([[0.45, 0.05, 0], [0.7, 0.3, 0], [np.nan, np.nan, np.nan]], np.float32)
    found = label_calibration.batch_calibrated(p)
    assert found[0] == pytest.approx(np.array([0.9 / 0.8, 0.1 / 0.2, 0]) / (0.9 / 0.8 + 0.1 / 0.2))
    assert found[1].argmax() == 1
    assert np.isnan(found[2]).all()
    assert found.dtype == np.float32


def test_contextual_calibration() -> None:
    """The prior is what inputs without content get, not what the batch gets."""
    p = np.array([[0.6, 0.4]], np.float32)
    found = label_calibration.contextually_calibrated(
        p, np.array([[0.8, 0.0], [np.nan, np.nan], [0.5, 0.5]], np.float32)
    )
    assert found[0] == pytest.approx(np.array([0.6 / 0.75, 0.4 / 0.25]) / (0.6 / 0.75 + 0.4 / 0.25))
    assert found[0] == pytest.approx(
        label_calibration.batch_calibrated(p, np.array([0.75, 0.25]))[0]
    )


def test_a_label_that_inputs_without_content_never_get() -> None:
    """Divided by nothing at all it would be impossible whatever the input, just where the bias is strongest."""
    p = np.array([[0.9, 0.1], [1.0, 0.0]], np.float32)
    found = label_calibration.contextually_calibrated(p, np.array([[1.0, 0.0]], np.float32))
    assert found[0, 1] > 0.99
    assert found[1].tolist() == [1.0, 0.0]


def test_a_strong_bias_is_known_from_inputs_without_content() -> None:
    """What the prompt says to nothing is what it adds to everything, whatever the labels' shares."""
    p, written, truth = biased(-9.0, share=0.9)
    nothing = label_calibration.Known(
        content_free=np.array([[1 / (1 + np.exp(9.0)), 1 / (1 + np.exp(-9.0))]], np.float32)
    )
    found = label_calibration.effect(p, written, truth, nothing)
    assert found is not None
    assert found.raw < 0.2
    assert found.calibrated > 0.9


def biased(
    bias: float, share: float = 0.5, number: int = 400
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(p, written, truth): a teacher that can tell two labels apart, behind a prompt that makes it write the first of them."""
    random = np.random.default_rng(0)
    truth = (random.random(number) > share).astype(np.int16)
    logit = np.where(truth == 0, 2.0, -2.0) + random.normal(0, 1, number) + bias
    p = np.stack([1 / (1 + np.exp(-logit)), 1 / (1 + np.exp(logit))], axis=1).astype(np.float32)
    return p, p.argmax(axis=1).astype(np.int16), truth


def test_calibration_undoes_a_bias() -> None:
    """The text is at chance and the probabilities are not: the case that all of this is for."""
    found = label_calibration.effect(*biased(3.0))
    assert found is not None
    assert found.text == found.raw < 0.65
    assert found.calibrated > found.raw + 0.2


def test_the_effect_is_only_known_with_ground_truth() -> None:
    """Rows without ground truth or distribution count for nothing; without any other there is no figure."""
    p, written, truth = biased(1.0)
    p[:10] = np.nan
    truth[10:20] = label_calibration.UNKNOWN
    found = label_calibration.effect(p, written, truth)
    assert found is not None
    assert found.rows == 380
    assert (
        label_calibration.effect(p, written, np.full_like(truth, label_calibration.UNKNOWN)) is None
    )


def test_known_shares_take_any_bias_off() -> None:
    """Where one label is rare, batch calibration would call many others by its name; and it leaves some of a strong bias."""
    weak, strong = biased(1.0, share=0.9), biased(-9.0, share=0.9)
    matched = [
        label_calibration.calibrate(p, label_calibration.Known([9.0, 1.0]))
        for p, _, _ in (weak, strong)
    ]
    assert matched[0].mean(axis=0) == pytest.approx([0.9, 0.1], abs=1e-3)
    assert matched[0] == pytest.approx(matched[1], abs=5e-3)
    even, known = (
        label_calibration.effect(*strong),
        label_calibration.effect(*strong, label_calibration.Known([0.9, 0.1])),
    )
    assert even is not None
    assert known is not None
    assert even.calibrated < 0.6
    assert known.calibrated > 0.9


def test_matching_leaves_what_it_cannot_match() -> None:
    """A label without any mass, and rows without a distribution, neither hang nor spread."""
    p = np.array([[0.5, 0.2, 0], [0.1, 0.7, 0], [np.nan, np.nan, np.nan]], np.float32)
    found = label_calibration.prior_matched(p, [1, 1, 1])
    assert found[:2].sum(axis=1) == pytest.approx([1, 1])
    assert np.isnan(found[2]).all()
    assert np.isnan(label_calibration.prior_matched(p[2:], [1, 1, 1])).all()


def test_each_reason_of_the_filter() -> None:
    """Another label is likelier; the answer is the likeliest, but not by enough; and rows that cannot be read are left alone."""
    p = np.array(
        [[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.58, 0.42], [np.nan, np.nan], [0.7, 0.3]], np.float32
    )
    written = np.array([0, 0, 0, 1, 0, -1], np.int16)
    verdicts = label_calibration.calibrated(
        np.arange(6), p, written, labels=LABELS, min_confidence=0.66
    )
    assert {row: verdict.reason for row, verdict in verdicts.items()} == {
        1: "low_label_confidence",
        2: "label_disagrees",
        3: "low_label_confidence",
    }
    assert verdicts[2] == Verdict("label_disagrees", "no 0.632")
    sure = label_calibration.batch_calibrated(p[:4])
    assert verdicts[1].value == pytest.approx(sure[1, 0], abs=1e-4)
    assert label_calibration.calibrated(np.arange(6), p, written, labels=LABELS, agree=False) == {}


def test_a_filter_that_can_read_nothing_says_so() -> None:
    """Labels of another prompt, or an answer span that begins with other words: every row would pass unjudged."""
    p, written = np.full((3, 2), np.nan, np.float32), np.zeros(3, np.int16)
    with pytest.raises(
        PipelineError,
        match=r"filter\.calibrated: no answer of 3 begins with a token of one of the labels yes, no",
    ):
        label_calibration.calibrated(np.arange(3), p, written, labels=LABELS)
    assert label_calibration.calibrated(np.arange(0), p, written, labels=LABELS) == {}


def test_soft_labels() -> None:
    """One token stands for each label, and a row's probabilities add up to one."""
    p, _, _ = biased(1.0)
    ids, logprobs = label_calibration.soft_labels(p, TOKENS)
    assert ids.tolist() == [10, 20]
    assert np.exp(logprobs).sum(axis=1) == pytest.approx(np.ones(len(p)))
    assert (logprobs.argmax(axis=1) == label_calibration.batch_calibrated(p).argmax(axis=1)).all()
