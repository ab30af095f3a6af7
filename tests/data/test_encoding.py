"""Encoding: the loss covers exactly the completion, and misaligned rows are refused."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data import prompts
from pipeline.data.encoding import (
    IGNORED,
    UNKNOWN,
    Encoder,
    Example,
    check_frames,
    fitting,
    long_rows,
)
from pipeline.data.spans import Span
from pipeline.errors import PipelineError
from pipeline.models.fake import TOKENIZER
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Frame, Sample, Seed
from pipeline.storage import topk
from tests.support.task import PROMPT
from tests.support.topk import header

Make = Callable[..., Sample]


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer(str(TOKENIZER))


@pytest.fixture
def prompt(tmp_path: Path) -> prompts.Prompt:
    (tmp_path / "prompt.md").write_text(PROMPT)
    return prompts.load(tmp_path / "prompt.md")


def encode(
    samples: list[Sample],
    prompt: prompts.Prompt,
    tokenizer: Tokenizer,
    same_tokenizer: bool,
    **options: Any,
) -> list[Example]:
    encoder = Encoder(tokenizer, prompt, same_tokenizer, **options)
    return [row for sample in samples for row in encoder.encode_sample(sample)]


def taught(example: Example) -> list[int]:
    return [label for label in example.labels if label != IGNORED]


def write_frames(folder: Path, token_ids: list[int], tokenizer_hash: str) -> Frame:
    head = header(tokenizer=tokenizer_hash, vocab_size=263, k=1)
    ids = np.array(token_ids, np.int32)[:, None]
    data = topk.encode(ids, np.full(ids.shape, -0.1, np.float32), head, 0)
    (folder / "00000.topk").write_bytes(head.to_bytes() + data)
    return Frame(
        file="00000.topk",
        offset=len(head.to_bytes()),
        nbytes=len(data),
        crc32=topk.checksum(data, token_ids),
    )


def test_unmasked_tokens_decode_to_exactly_the_completion(
    sample: Make, tokenizer: Tokenizer, prompt: prompts.Prompt
) -> None:
    """One token too many or too few on the prompt's side trains the wrong thing."""
    ids = tokenizer.encode_reply(" yes, it is even\n")
    (example,) = encode([sample(token_ids=ids)], prompt, tokenizer, same_tokenizer=True)
    assert taught(example) == ids
    assert tokenizer.decode(taught(example)) == " yes, it is even\n"
    assert example.rows == [UNKNOWN] * len(example.rows)
    assert tokenizer.decode(example.input_ids[: -len(ids)]) == "Is 0 even?\nAnswer:"


def test_text_is_tokenised_anew_for_another_tokenizer(
    sample: Make, tokenizer: Tokenizer, prompt: prompts.Prompt
) -> None:
    """The teacher's ids and frames mean nothing to a student with another tokenizer."""
    place = Frame(file="f", offset=0, nbytes=1, crc32=0)
    (example,) = encode(
        [sample(token_ids=[99_999], frame=place)], prompt, tokenizer, same_tokenizer=False
    )
    assert tokenizer.decode(taught(example)) == " yes, it is even\n"
    assert example.frame is None


def test_frames_that_fit_are_accepted(
    tmp_path: Path, sample: Make, tokenizer: Tokenizer, prompt: prompts.Prompt
) -> None:
    """The check must not refuse valid frames."""
    ids = tokenizer.encode_reply(" yes")
    examples = encode(
        [sample(token_ids=ids, frame=write_frames(tmp_path, ids, tokenizer.hash))],
        prompt,
        tokenizer,
        same_tokenizer=True,
    )
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
    """Frames of other tokens, length, tokenizer or ids out of range never reach training."""
    place = write_frames(tmp_path, tokenizer.encode_reply(stored), hash_ or tokenizer.hash)
    examples = encode(
        [sample(token_ids=tokenizer.encode_reply(" yes"), frame=place)],
        prompt,
        tokenizer,
        same_tokenizer=True,
    )
    with pytest.raises(PipelineError, match=expected):
        check_frames(examples, tmp_path, tokenizer, vocab_size)


def test_row_without_frame_is_refused(
    tmp_path: Path, sample: Make, tokenizer: Tokenizer, prompt: prompts.Prompt
) -> None:
    """Otherwise KD would silently train some rows with SFT."""
    with pytest.raises(PipelineError, match="has no logprobs, and kd needs them"):
        check_frames(
            encode([sample(token_ids=[9])], prompt, tokenizer, same_tokenizer=True),
            tmp_path,
            tokenizer,
            263,
        )


def test_one_long_row_is_left_out_not_cut(
    sample: Make, tokenizer: Tokenizer, prompt: prompts.Prompt
) -> None:
    """A cut row loses its end, and its frame no longer fits; one long row refused a whole arm."""
    texts = ["yes", "no", "x" * 100]
    examples = encode(
        [sample(n, text=text) for n, text in enumerate(texts)],
        prompt,
        tokenizer,
        same_tokenizer=False,
    )
    assert long_rows(examples, 200) is None
    longest = len(examples[2].input_ids)
    assert long_rows(examples, 60) == (
        f"1 of 3 rows are longer than train.max_length=60: s2 ({longest} tokens); "
        f"they are left out, train.max_length={longest} keeps all"
    )
    assert [example.id for example in fitting(examples, 60)] == ["s0", "s1"]
    with pytest.raises(PipelineError, match=rf"3 of 3 .*train\.max_length={longest} keeps all"):
        long_rows(examples, 5)


PLACE = Frame(file="f", offset=0, nbytes=1, crc32=0)
# per form, for each row: the prompt's beginning, the text to learn, and the number of tokens with a
# teacher distribution
FORMS = {
    "whole": [("Is", " yes, it is even\n", 17)],
    "answer": [("Is", "yes\n", 3)],
    "steps": [("[answer] Is", "yes\n", 3), ("[rationale] Is", "it is even\n", 11)],
}


def read_sample(sample: Make, tokenizer: Tokenizer, **changes: Any) -> Sample:
    """Return the sample as generate stores it: one token per character."""
    ids = tokenizer.encode_reply(" yes, it is even\n")[:-1]
    assert len(ids) == 17
    return sample(
        token_ids=ids, answer_tokens=(1, 4), rationale_tokens=(6, 16), frame=PLACE, **changes
    )


@pytest.mark.parametrize("form", FORMS)
def test_forms_teach_their_part_of_the_reply(
    form: Any, sample: Make, tokenizer: Tokenizer, prompt: prompts.Prompt
) -> None:
    """A token must not be trained on a distribution of another token or behind other text."""
    rows = encode(
        [read_sample(sample, tokenizer)], prompt, tokenizer, same_tokenizer=True, form=form
    )
    actual = []
    for row in rows:
        begin = row.labels.count(IGNORED)
        assert [row.teacher_ids[place] for place in row.rows if place != UNKNOWN] == [
            token for token, place in zip(row.input_ids, row.rows, strict=True) if place != UNKNOWN
        ]
        known = sum(place != UNKNOWN for place in row.rows)
        actual.append(
            (
                tokenizer.decode(row.input_ids[:begin]).split(" 0")[0].removesuffix(" "),
                tokenizer.decode(taught(row)),
                known,
            )
        )
    assert actual == FORMS[form]


def test_rationale_is_weighted_by_its_tokens(
    sample: Make, tokenizer: Tokenizer, prompt: prompts.Prompt
) -> None:
    """Weights that slip by one token would weight the answer."""
    (row,) = encode(
        [read_sample(sample, tokenizer)],
        prompt,
        tokenizer,
        same_tokenizer=True,
        rationale_weight=0.5,
    )
    assert row.weights[-17:] == [1.0] * 6 + [0.5] * 10 + [1.0]
    assert set(row.weights[:-17]) == {0.0}


@pytest.mark.parametrize("form", FORMS)
def test_balanced_rationale_weighs_as_much_as_the_answer(
    form: Any, sample: Make, tokenizer: Tokenizer, prompt: prompts.Prompt
) -> None:
    """A label of a few tokens was drowned by the words of its reason. By hand: 3 tokens of answer,
    10 of rationale, 4 others (space, comma, space, end) that keep weight 1."""
    rows = encode(
        [read_sample(sample, tokenizer)],
        prompt,
        tokenizer,
        same_tokenizer=True,
        form=form,
        rationale_weight="balanced",
    )
    weights = [weight for row in rows for weight in row.weights]
    rationale = 0 if form == "answer" else 10
    assert weights.count(0.3) == rationale
    assert set(weights) <= {0.0, 0.3, 1.0}
    assert form != "whole" or weights[-17:] == [1.0] * 6 + [0.3] * 10 + [1.0]


@pytest.mark.parametrize("missing", ["answer_tokens", "rationale_tokens"])
def test_balanced_reply_without_both_parts_has_weight_one(
    missing: str, sample: Make, tokenizer: Tokenizer, prompt: prompts.Prompt
) -> None:
    """A reply in which a part was not found must not get the weight 0 or divide by it."""
    one = read_sample(sample, tokenizer).model_copy(update={missing: None})
    (row,) = encode([one], prompt, tokenizer, same_tokenizer=True, rationale_weight="balanced")
    assert row.weights[-17:] == [1.0] * 17


def test_ground_truth_is_taught_in_every_form(
    sample: Make, tokenizer: Tokenizer, prompt: prompts.Prompt
) -> None:
    """Rows of ground truth (the few-rows control, corrected samples) must look like replies."""
    front = prompt.front.model_copy(update={"target": " {target}, it is {number}\n"})
    seed = Seed(id="a", inputs={"number": 4}, target="yes")
    for form, expected in (
        ("whole", [" yes, it is 4\n"]),
        ("answer", ["yes\n"]),
        ("steps", ["yes\n", "it is 4\n"]),
    ):
        prompt_of_front = dataclasses.replace(prompt, front=front)
        encoder = Encoder(tokenizer, prompt_of_front, True, form)  # type: ignore[arg-type]
        rows = encoder.encode_target(seed)
        assert [tokenizer.decode(taught(row)) for row in rows] == expected
        assert all(row.frame is None for row in rows)


@pytest.mark.parametrize(
    ("form", "expected"), [("answer", ["36\n"]), ("steps", ["36\n", "2 * 18 = 36.\n"])]
)
def test_answer_that_also_occurs_in_its_rationale(
    form: Any, expected: list[str], tokenizer: Tokenizer, prompt: prompts.Prompt
) -> None:
    """The first 36 is not the answer, but rows once started there."""
    spans = {
        "rationale": Span(end="The answer is"),
        "answer": Span(start="The answer is", end="\n"),
        "target": "{why} The answer is {target}\n",
    }
    tagged = dataclasses.replace(prompt, front=prompt.front.model_copy(update=spans))
    seed = Seed(id="a", inputs={"number": 4, "why": "2 * 18 = 36."}, target="36")
    encoder = Encoder(tokenizer, tagged, same_tokenizer=False, form=form)
    assert [tokenizer.decode(taught(row)) for row in encoder.encode_target(seed)] == expected


def test_text_tokenised_anew_keeps_its_parts_and_its_end(
    sample: Make, tokenizer: Tokenizer, prompt: prompts.Prompt
) -> None:
    """The answer "no" is not the one in "nothing", and a truncated reply has no end to learn."""
    tricky = sample(text="nothing odd here. So: no", rationale="nothing odd here.", answer="no")
    (row,) = encode([tricky], prompt, tokenizer, same_tokenizer=False, form="answer")
    assert tokenizer.decode(taught(row)) == "no"
    for reason, ended in (("stop", True), ("length", False)):
        (row,) = encode(
            [sample(text=" no", finish_reason=reason)], prompt, tokenizer, same_tokenizer=False
        )
        assert (taught(row)[-1] == tokenizer.hf.eos_token_id) is ended


def test_ground_truth_without_a_readable_answer_is_refused(
    tokenizer: Tokenizer, prompt: prompts.Prompt
) -> None:
    """No filter can fix what the prompt's own front matter writes."""
    tagged = dataclasses.replace(
        prompt,
        front=prompt.front.model_copy(
            update={"answer": Span(start="<a>", end="</a>"), "target": "{target}"}
        ),
    )
    with pytest.raises(PipelineError, match="no answer can be read in the ground truth of seed a"):
        Encoder(tokenizer, tagged, True, "answer").encode_target(
            Seed(id="a", inputs={"number": 4}, target="yes")
        )


def test_answer_that_cannot_be_read_is_refused_where_it_is_taught(
    sample: Make, tokenizer: Tokenizer, prompt: prompts.Prompt
) -> None:
    """An empty reply would teach the student to write nothing."""
    with pytest.raises(
        PipelineError, match="no answer can be read in it, and form: answer trains on the answer"
    ):
        encode(
            [sample(token_ids=[9], answer=None)],
            prompt,
            tokenizer,
            same_tokenizer=True,
            form="answer",
        )
