"""Rows of a live teacher: each shared position must predict the same token on both sides."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data import prompts
from pipeline.data.encoding import IGNORED, Encoder, TeacherPrompts
from pipeline.data.vocabulary import Vocabulary
from pipeline.models.fake import TOKENIZER
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Sample
from pipeline.training import collation, teacher_rows
from tests.support.task import PROMPT

TEXT = " yes, it is even\n"
LONGER = PROMPT.replace("Is {{", "Say yes or no, then why. Is {{")


def batch(
    folder: Path, make: Callable[..., Sample], packed: bool, **options: Any
) -> dict[str, Any]:
    """Collate two samples whose teacher has a longer prompt, and a row that it does not read."""
    tokenizer = Tokenizer(str(TOKENIZER))
    for name, text in (("short", PROMPT), ("longer", LONGER)):
        (folder / f"{name}.md").write_text(text)
    short, longer = (prompts.load(folder / f"{name}.md") for name in ("short", "longer"))
    teacher = TeacherPrompts(tokenizer, [longer])
    encoder = Encoder(tokenizer, short, True, teacher=teacher, **options)
    ids = tokenizer.encode_reply(TEXT)
    answer, rationale = (
        tokenizer.token_range(ids, TEXT, *part) for part in ((1, 4), (6, len(TEXT) - 1))
    )
    samples = [
        make(number, token_ids=ids, answer_tokens=answer, rationale_tokens=rationale)
        for number in (7, 123456)
    ]
    rows = [row for sample in samples for row in encoder.encode_sample(sample)]
    alone = Encoder(tokenizer, short, True, **options).encode_sample(samples[0])
    rows = [rows[0], *alone, *rows[1:]]
    collate = collation.Collator(
        tokenizer.pad_id, None, packed, teacher_rows.TeacherRows(rows, tokenizer.pad_id)
    )
    features = collation.dataset(rows, 512 if packed else None)
    return collate([features[place] for place in range(len(features))])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", ["whole", "answer", "steps"])
def test_shared_positions_predict_the_same_token(
    tmp_path: Path, sample: Callable[..., Sample], form: str, packed: bool
) -> None:
    """Prompts differ in length and forms leave tokens out, so positions are easily shifted."""
    made = batch(tmp_path, sample, packed, form=form)
    shared = teacher_rows.shared(made)
    student = made["input_ids"].flatten()[shared.student + 1]
    teacher = shared.ids.flatten()[shared.teacher + 1]
    assert len(student) == sum(shared.counts) == len(shared.weights) > 0
    assert student.tolist() == teacher.tolist()


def test_ids_of_a_trimmed_student_are_translated(
    tmp_path: Path, sample: Callable[..., Sample]
) -> None:
    """A teacher that reads the student's ids reads other words."""
    tokenizer = Tokenizer(str(TOKENIZER))
    kept = tuple(number for number in range(tokenizer.vocab_size) if number % 7 != 3 or number > 20)
    made = batch(tmp_path, sample, False, vocabulary=Vocabulary(tokenizer.hash, kept))
    shared = teacher_rows.shared(made)
    student = made["input_ids"].flatten()[shared.student + 1].numpy()
    teacher = shared.ids.flatten()[shared.teacher + 1].numpy()
    assert np.array(kept)[student].tolist() == teacher.tolist()
    assert tokenizer.decode(teacher[: len(teacher) // 2].tolist()) == TEXT


def test_a_batch_without_a_shared_token_has_no_teacher_row() -> None:
    """A batch of canaries alone must be a batch without a teacher, not an error."""
    rows = teacher_rows.TeacherRows([], 0)
    floats, places = np.zeros(0, np.float32), np.zeros(0, np.int64)
    made = rows.batch(torch.full((1, 3), IGNORED), floats, places, places)
    assert teacher_rows.shared(made).ids.shape == (0, 0)
