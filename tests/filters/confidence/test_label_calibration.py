"""Label calibration: read the labels' probabilities, remove the bias, refuse what is impossible."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.filters.confidence import calibration_effect, label_calibration
from pipeline.filters.confidence.label_calibration import Prior
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
    """Return a tokenizer with one token a byte."""
    return Tokenizer(str(TOKENIZER))


def spelled_tokens(tokenizer: Tokenizer, labels: list[str], before: str = "") -> list[list[str]]:
    spelled = []
    for tokens in label_calibration.label_tokens(tokenizer, labels, before):
        spelled.append([tokenizer.decode([token]) for token in tokens])
    return spelled


def test_label_tokens(tokenizer: Tokenizer) -> None:
    """Other cases of a label count for it; the label as it is written comes first."""
    assert spelled_tokens(tokenizer, ["yes", "No"], "Answer: ") == [["y", "Y"], ["N", "n"]]


def test_label_tokens_walk_on_behind_what_all_labels_share(tokenizer: Tokenizer) -> None:
    """The first token of "class a" and "class b" does not distinguish them."""
    assert spelled_tokens(tokenizer, ["class a", "class b"]) == [["a", "A"], ["b", "B"]]


@pytest.mark.parametrize("labels", [["spam", "sport", "normal"], ["yes", "yes please"]])
def test_labels_that_begin_alike_are_refused(tokenizer: Tokenizer, labels: list[str]) -> None:
    """The probability of one label was counted for another."""
    message = r"begins with the same token as another one.*give them names that begin differently"
    with pytest.raises(PipelineError, match=message):
        label_calibration.label_tokens(tokenizer, labels)


def read(folder: Path, sample: Sample, *tokens: Distribution) -> list[float]:
    samples, frames = framed(folder, [sample], [tokens])
    return label_calibration.label_distribution(Batch(samples, frames), TOKENS)[0].tolist()


def test_the_mass_of_a_label_is_that_of_its_variants(sample: Make, tmp_path: Path) -> None:
    """Tokens before the answer and tokens of no label were counted."""
    masses = read(
        tmp_path,
        sample(answer_tokens=(1, 3)),
        [(20, 1.0)],
        [(10, 0.5), (20, 0.25), (11, 0.15), (99, 0.1)],
        [(20, 1.0)],
    )
    assert masses == pytest.approx([0.65, 0.25], abs=0.02)


def test_the_answer_is_read_at_its_first_telling_token(sample: Make, tmp_path: Path) -> None:
    """An answer that begins with a quotation mark, or as all labels do, could not be read."""
    tokens = [[(99, 0.9), (20, 0.1)], [(20, 0.7), (10, 0.3)]]
    masses = read(tmp_path, sample(answer_tokens=(0, 2)), *tokens)
    assert masses == pytest.approx([0.3, 0.7], abs=0.02)


def test_a_label_that_is_not_stored_is_less_likely_than_what_is(
    sample: Make, tmp_path: Path
) -> None:
    """A mass of zero would be certainty, and the whole tail is more than the label can have."""
    answer = sample(answer_tokens=(0, 1))
    small_tail = read(tmp_path, answer, [(10, 0.9)])
    large_tail = read(tmp_path, answer, [(10, 0.5), (99, 0.2)])
    assert small_tail == pytest.approx([0.9, 0.1], abs=0.02)
    assert large_tail == pytest.approx([0.5, 0.2], abs=0.02)


def test_an_answer_that_cannot_be_read_is_nan(sample: Make, tmp_path: Path) -> None:
    """A missing answer, or one that begins like no label, got some distribution."""
    assert np.isnan(read(tmp_path, sample(), [(10, 0.9)])).all()
    assert np.isnan(read(tmp_path, sample(answer_tokens=(0, 1)), [(99, 0.5), (10, 0.5)])).all()


def test_samples_without_frames_are_refused(sample: Make) -> None:
    """Text alone has nothing to calibrate."""
    with pytest.raises(PipelineError, match=r"filter\.calibrated: sample s0 has no logprobs"):
        label_calibration.label_distribution(Batch([sample()], TopKFolder(Path())), TOKENS)


def test_labels_are_read_as_they_are_scored(sample: Make) -> None:
    """Case and punctuation do not count; what is no label, or missing, has no number."""
    samples = [sample(answer="No."), sample(answer="maybe"), sample(answer=None)]
    batch = Batch(samples, TopKFolder(Path()))
    assert label_calibration.written_label(batch, LABELS).tolist() == [1, -1, -1]
    assert label_calibration.true_label(batch, LABELS).tolist() == [0, 0, 0]


def test_batch_calibration() -> None:
    """Rows are normalised, divided by their mean and normalised again, by hand; rows of nan and a
    label without mass do no harm."""
    p = np.array([[0.45, 0.05, 0], [0.7, 0.3, 0], [np.nan, np.nan, np.nan]], np.float32)
    calibrated = label_calibration.batch_calibrate(p)
    expected = np.array([0.9 / 0.8, 0.1 / 0.2, 0]) / (0.9 / 0.8 + 0.1 / 0.2)
    assert calibrated[0] == pytest.approx(expected)
    assert calibrated[1].argmax() == 1
    assert np.isnan(calibrated[2]).all()
    assert calibrated.dtype == np.float32


def test_contextual_calibration() -> None:
    """The bias is what inputs without content get, not what the batch gets."""
    p = np.array([[0.6, 0.4]], np.float32)
    content_free = np.array([[0.8, 0.0], [np.nan, np.nan], [0.5, 0.5]], np.float32)
    calibrated = label_calibration.contextually_calibrate(p, content_free)
    expected = np.array([0.6 / 0.75, 0.4 / 0.25]) / (0.6 / 0.75 + 0.4 / 0.25)
    assert calibrated[0] == pytest.approx(expected)
    by_bias = label_calibration.batch_calibrate(p, np.array([0.75, 0.25]))
    assert calibrated[0] == pytest.approx(by_bias[0])


def test_a_label_that_inputs_without_content_never_get() -> None:
    """Where the bias is strongest, such a label was impossible whatever the input."""
    p = np.array([[0.9, 0.1], [1.0, 0.0]], np.float32)
    content_free = np.array([[1.0, 0.0]], np.float32)
    calibrated = label_calibration.contextually_calibrate(p, content_free)
    assert calibrated[0, 1] > 0.99
    assert calibrated[1].tolist() == [1.0, 0.0]


def test_a_strong_bias_is_known_from_inputs_without_content() -> None:
    """Contextual calibration removes a strong bias, whatever the shares of the labels."""
    p, written, truth = biased(-9.0, share=0.9)
    content_free = np.array([[1 / (1 + np.exp(9.0)), 1 / (1 + np.exp(-9.0))]], np.float32)
    prior = Prior(content_free=content_free)
    effect = calibration_effect.measure_effect(p, written, truth, prior)
    assert effect is not None
    assert effect.raw < 0.2
    assert effect.calibrated > 0.9


def biased(
    bias: float, share: float = 0.5, number: int = 400
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return p, written and truth of a teacher that can tell two labels apart, with a prompt that
    favours the first one by `bias`."""
    random = np.random.default_rng(0)
    truth = (random.random(number) > share).astype(np.int16)
    logit = np.where(truth == 0, 2.0, -2.0) + random.normal(0, 1, number) + bias
    p = np.stack([1 / (1 + np.exp(-logit)), 1 / (1 + np.exp(logit))], axis=1).astype(np.float32)
    return p, p.argmax(axis=1).astype(np.int16), truth


def test_calibration_undoes_a_bias() -> None:
    """The text is at chance and the probabilities are not: the case that the filter is for."""
    effect = calibration_effect.measure_effect(*biased(3.0))
    assert effect is not None
    assert effect.text == effect.raw < 0.65
    assert effect.calibrated > effect.raw + 0.2


def test_the_effect_is_only_known_with_ground_truth() -> None:
    """Rows without ground truth or distribution were counted; without other rows there is no
    figure."""
    p, written, truth = biased(1.0)
    p[:10] = np.nan
    truth[10:20] = label_calibration.UNKNOWN
    effect = calibration_effect.measure_effect(p, written, truth)
    assert effect is not None
    assert effect.rows == 380
    no_truth = np.full_like(truth, label_calibration.UNKNOWN)
    assert calibration_effect.measure_effect(p, written, no_truth) is None


def test_known_shares_take_any_bias_off() -> None:
    """Batch calibration gives a rare label too many rows, and leaves some of a strong bias."""
    weak = biased(1.0, share=0.9)
    strong = biased(-9.0, share=0.9)
    matched = [label_calibration.calibrate(p, Prior([9.0, 1.0])) for p, _, _ in (weak, strong)]
    assert matched[0].mean(axis=0) == pytest.approx([0.9, 0.1], abs=1e-3)
    assert matched[0] == pytest.approx(matched[1], abs=5e-3)
    by_batch = calibration_effect.measure_effect(*strong)
    by_shares = calibration_effect.measure_effect(*strong, Prior([0.9, 0.1]))
    assert by_batch is not None
    assert by_shares is not None
    assert by_batch.calibrated < 0.6
    assert by_shares.calibrated > 0.9


def test_matching_leaves_what_it_cannot_match() -> None:
    """A label without any mass looped for ever, and rows of nan spread to the others."""
    p = np.array([[0.5, 0.2, 0], [0.1, 0.7, 0], [np.nan, np.nan, np.nan]], np.float32)
    matched = label_calibration.match_shares(p, [1, 1, 1])
    assert matched[:2].sum(axis=1) == pytest.approx([1, 1])
    assert np.isnan(matched[2]).all()
    assert np.isnan(label_calibration.match_shares(p[2:], [1, 1, 1])).all()


def test_each_reason_of_the_filter() -> None:
    """Another label is more likely; or the answer is not likely enough. Unreadable rows pass."""
    p = np.array(
        [[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.58, 0.42], [np.nan, np.nan], [0.7, 0.3]], np.float32
    )
    written = np.array([0, 0, 0, 1, 0, -1], np.int16)
    rows = np.arange(6)
    verdicts = label_calibration.reject_unlikely_labels(
        rows, p, written, labels=LABELS, min_confidence=0.66
    )
    assert {row: verdict.reason for row, verdict in verdicts.items()} == {
        1: "low_label_confidence",
        2: "label_disagrees",
        3: "low_label_confidence",
    }
    assert verdicts[2] == Verdict("label_disagrees", "no 0.632")
    calibrated = label_calibration.batch_calibrate(p[:4])
    assert verdicts[1].value == pytest.approx(calibrated[1, 0], abs=1e-4)
    assert (
        label_calibration.reject_unlikely_labels(rows, p, written, labels=LABELS, agree=False) == {}
    )


def test_a_filter_that_can_read_nothing_says_so() -> None:
    """With labels of another prompt, or a wrong answer span, every row passed unjudged."""
    p = np.full((3, 2), np.nan, np.float32)
    written = np.zeros(3, np.int16)
    message = r"filter\.calibrated: no answer of 3 begins with a token of one of the labels yes, no"
    with pytest.raises(PipelineError, match=message):
        label_calibration.reject_unlikely_labels(np.arange(3), p, written, labels=LABELS)
    no_rows = np.arange(0)
    assert label_calibration.reject_unlikely_labels(no_rows, p, written, labels=LABELS) == {}


def test_soft_labels() -> None:
    """One token stands for each label, and the probabilities of a row sum to one."""
    p, _, _ = biased(1.0)
    token_ids, logprobs = label_calibration.soft_labels(p, TOKENS)
    assert token_ids.tolist() == [10, 20]
    assert np.exp(logprobs).sum(axis=1) == pytest.approx(np.ones(len(p)))
    assert (logprobs.argmax(axis=1) == label_calibration.batch_calibrate(p).argmax(axis=1)).all()


def test_a_strong_bias_is_told_from_a_weak_one() -> None:
    """Soft labels were worth 20 points on a biased prompt, and cost 2 where the text was right."""
    random = np.random.default_rng(0)
    clear = random.beta(0.6, 0.6, 400)
    unbiased = np.stack([clear, 1 - clear], 1).astype(np.float32)
    biased = unbiased * np.array([1.0, 0.05], np.float32)
    biased /= biased.sum(1, keepdims=True)
    vague = np.full((400, 2), [0.6, 0.4], np.float32) + 0.01 * random.normal(size=(400, 1)).astype(
        np.float32
    ) * np.array([1.0, -1.0], np.float32)
    found = [
        calibration_effect.measure_bias(p, p.argmax(1).astype(np.int16))
        for p in (unbiased, biased, vague)
    ]
    assert [bias.is_strong for bias in found] == [False, True, False]
    assert found[2].changed > 0.3 > found[2].information
