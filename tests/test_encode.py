"""Encoding: the loss is on exactly the completion, and nothing misaligned gets through."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline import prompts, topk
from pipeline.encode import IGNORED, check_frames, check_lengths, encode
from pipeline.errors import PipelineError
from pipeline.models.fake import TOKENIZER
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Frame, Sample
from tests.conftest import PROMPT
from tests.test_topk import header

Make = Callable[..., Sample]


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer(str(TOKENIZER))


@pytest.fixture
def prompt(tmp_path: Path) -> prompts.Prompt:
    (tmp_path / "prompt.md").write_text(PROMPT)
    return prompts.load(tmp_path / "prompt.md")


def write_frames(folder: Path, token_ids: list[int], tokenizer_hash: str) -> Frame:
    head = header(tokenizer=tokenizer_hash, vocab_size=263, k=1)
    ids = np.array(token_ids, np.int32)[:, None]
    data = topk.encode(ids, np.full(ids.shape, -0.1, np.float32), head, 0)
    (folder / "00000.topk").write_bytes(head.to_bytes() + data)
    return Frame(file="00000.topk", offset=len(head.to_bytes()), nbytes=len(data), crc32=topk.checksum(data, token_ids))


def test_unmasked_tokens_decode_to_exactly_the_completion(sample: Make, tokenizer: Tokenizer, prompt: prompts.Prompt) -> None:
    """One token too many or too few on the prompt's side trains the wrong thing."""
    ids = tokenizer.encode_reply(" yes, it is even\n")
    (example,) = encode([sample(token_ids=ids)], prompt, tokenizer, ids_fit=True)
    bearing = [label for label in example.labels if label != IGNORED]
    assert bearing == ids
    assert tokenizer.decode(bearing) == " yes, it is even\n"
    assert tokenizer.decode(example.input_ids[: -len(ids)]) == "Is 0 even?\nAnswer:"


def test_text_is_tokenised_anew_for_another_tokenizer(sample: Make, tokenizer: Tokenizer, prompt: prompts.Prompt) -> None:
    """The teacher's ids mean nothing to another student; its frames neither."""
    place = Frame(file="f", offset=0, nbytes=1, crc32=0)
    (example,) = encode([sample(token_ids=[99_999], frame=place)], prompt, tokenizer, ids_fit=False)
    assert [label for label in example.labels if label != IGNORED] == tokenizer.encode_reply(" yes, it is even\n")
    assert example.frame is None


def test_frames_that_fit_are_accepted(tmp_path: Path, sample: Make, tokenizer: Tokenizer, prompt: prompts.Prompt) -> None:
    """The check must not refuse what is right."""
    ids = tokenizer.encode_reply(" yes")
    examples = encode([sample(token_ids=ids, frame=write_frames(tmp_path, ids, tokenizer.hash))], prompt, tokenizer, ids_fit=True)
    check_frames(examples, tmp_path, tokenizer, 263)


@pytest.mark.parametrize(
    ("stored", "hash_", "vocab_size", "expected"),
    [
        (" no!", None, 263, "not that of these tokens"),
        (" ye", None, 263, "not that of these tokens"),
        (" yes", "another", 263, "differs from the student's"),
        (" yes", None, 50, "beyond the student's vocabulary of 50"),
    ],
)
def test_misaligned_frames_are_refused(
    tmp_path: Path,
    sample: Make,
    tokenizer: Tokenizer,
    prompt: prompts.Prompt,
    stored: str,
    hash_: str | None,
    vocab_size: int,
    expected: str,
) -> None:
    """Other tokens, another length, another tokenizer, ids out of range: all fail closed, before training."""
    place = write_frames(tmp_path, tokenizer.encode_reply(stored), hash_ or tokenizer.hash)
    examples = encode([sample(token_ids=tokenizer.encode_reply(" yes"), frame=place)], prompt, tokenizer, ids_fit=True)
    with pytest.raises(PipelineError, match=expected):
        check_frames(examples, tmp_path, tokenizer, vocab_size)


def test_row_without_frame_is_refused(tmp_path: Path, sample: Make, tokenizer: Tokenizer, prompt: prompts.Prompt) -> None:
    """KD on some rows and SFT on others, in silence, would be neither."""
    with pytest.raises(PipelineError, match="has no logprobs, and kd needs them"):
        check_frames(encode([sample(token_ids=[9])], prompt, tokenizer, ids_fit=True), tmp_path, tokenizer, 263)


def test_long_rows_are_refused_not_cut(sample: Make, tokenizer: Tokenizer, prompt: prompts.Prompt) -> None:
    """A cut row has lost its end, and its frame no longer fits."""
    examples = encode([sample(0), sample(1, text="x" * 100)], prompt, tokenizer, ids_fit=False)
    check_lengths(examples, 200)
    with pytest.raises(PipelineError, match=r"1 rows are longer than train\.max_length=60, the longest \(sample s1\)"):
        check_lengths(examples, 60)
