"""From kept samples to training rows: the student's own prompt, the teacher's completion by its token ids, its frames beside it.

Alignment fails closed: tokenizer, ids and lengths are checked row by row before training begins.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.models.tokenizer import Tokenizer
from pipeline.prompts import Prompt
from pipeline.records import Frame, Sample
from pipeline.topk import TopKFolder

IGNORED = -100  # label of a token that bears no loss


@dataclass(frozen=True)
class Example:
    """One row. `labels` is IGNORED on the prompt and the token itself on the completion; `frame` is where its top-k lie."""

    id: str
    input_ids: list[int]
    labels: list[int]
    frame: Frame | None


def encode(samples: Iterable[Sample], prompt: Prompt, tokenizer: Tokenizer, ids_fit: bool) -> list[Example]:
    """Rows for one student.

    `ids_fit`: its tokenizer is the teacher's, so the teacher's ids are used as they are; otherwise, and where a server gave none,
    the text is tokenised anew and the frames cannot be used.
    """
    return [_example(sample, prompt, tokenizer, ids_fit) for sample in samples]


def bearing(labels: Sequence[int]) -> list[int]:
    """The tokens of a row that bear a loss: its completion."""
    return [label for label in labels if label != IGNORED]


def check_lengths(examples: Sequence[Example], max_length: int) -> None:
    """Refuse rows that would have to be cut."""
    long = [example for example in examples if len(example.input_ids) > max_length]
    if long:
        worst = max(long, key=lambda example: len(example.input_ids))
        raise PipelineError(
            f"train: {len(long):,} rows are longer than train.max_length={max_length}, the longest (sample {worst.id}) "
            f"{len(worst.input_ids)} tokens; raise train.max_length, or drop long completions with filter.max_tokens"
        )


def check_frames(examples: Sequence[Example], folder: Path, tokenizer: Tokenizer, vocab_size: int) -> TopKFolder:
    """Hold every row's frame against the row. `vocab_size` is the student's. Returns the open folder.

    Raises PipelineError if a row has no frame, another tokenizer wrote it, or its ids or length are not the row's.
    """
    files = TopKFolder(folder)
    for example in examples:
        where = f"sample {example.id}"
        if example.frame is None:
            raise PipelineError(f"{where}: has no logprobs, and kd needs them; generate with teacher.logprobs, or train sft arms only")
        header = files.file(example.frame.file).header
        if header.tokenizer != tokenizer.hash:
            raise PipelineError(
                f"{where}: its logprobs are by the tokenizer of {header.teacher}, which differs from the student's ({tokenizer.name}); "
                "kd needs a student of the same vocabulary. Choose one, or train this student with method: sft"
            )
        try:
            topk = files.frame(example.frame, bearing(example.labels))
        except PipelineError as error:
            raise PipelineError(f"{where}: {error}") from None
        if topk.ids.max() >= vocab_size:
            raise PipelineError(
                f"{where}: token id {topk.ids.max()} is beyond the student's vocabulary of {vocab_size}; choose another student"
            )
    return files


def _example(sample: Sample, prompt: Prompt, tokenizer: Tokenizer, ids_fit: bool) -> Example:
    begin = tokenizer.encode(prompt.render(sample.seed, tokenizer.control_tokens))
    if not begin:
        raise PipelineError(f"{prompt.name}: is empty for seed {sample.seed.id}; a completion needs at least one token before it")
    if ids_fit and sample.token_ids is not None:
        completion, frame = sample.token_ids, sample.frame
    else:
        completion, frame = tokenizer.encode_reply(sample.text), None
    return Example(sample.id, begin + completion, [IGNORED] * len(begin) + completion, frame)
