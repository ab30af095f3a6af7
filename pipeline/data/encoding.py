"""Encode samples as training rows: the student's prompt, the reply, the teacher's distributions.

Tokenizer, ids and lengths of every row are checked before training begins.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.config import Form
from pipeline.data.prompts import Prompt
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import NoAnswerError, PipelineError
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Frame, Range, Sample, Seed
from pipeline.storage.topk import TopKFolder

IGNORED = -100  # label of a token without a loss
MOST_LONG = 0.05  # share of the rows that may be left out for their length
NAMED_ROWS = 5  # in a message
UNKNOWN = -1  # frame row of a token without a teacher distribution


@dataclass(frozen=True)
class Example:
    """One training row. The lists have one entry per token.

    Attributes:
        labels: IGNORED on the prompt, the token itself on the reply.
        weights: weights in the loss.
        rows: for each token, its place in the teacher's completion, which is the row of the frame
            with the teacher's distribution. UNKNOWN for a token that the teacher does not read.
        teacher_ids: the whole completion in the teacher's ids. The frame belongs to it.
        teacher_prompt: the teacher's prompt in its ids, if the teacher reads the row too.
    """

    id: str
    input_ids: list[int]
    labels: list[int]
    weights: list[float]
    rows: list[int]
    frame: Frame | None = None
    teacher_ids: list[int] = dataclasses.field(default_factory=list)
    teacher_prompt: list[int] = dataclasses.field(default_factory=list)
    answer: Range = (0, 0)


def make_example(
    identifier: str, prompt: list[int], reply: list[int], weights: list[float], rows: list[int]
) -> Example:
    """Return a row with a loss on the reply alone. `weights` and `rows` are for the reply."""
    blank = len(prompt)
    return Example(
        id=identifier,
        input_ids=prompt + reply,
        labels=[IGNORED] * blank + reply,
        weights=[0.0] * blank + weights,
        rows=[UNKNOWN] * blank + rows,
    )


@dataclass(frozen=True)
class TeacherPrompts:
    """The prompts that the teacher reads. `tokenizer` is the teacher's."""

    tokenizer: Tokenizer
    prompts: Sequence[Prompt]

    def encode(self, seed: Seed, number: int) -> list[int]:
        """Return the token ids of the prompt with this number, as generate sent them."""
        prompt = self.prompts[number]
        return self.tokenizer.encode(prompt.render(seed, self.tokenizer.control_tokens))


@dataclass(frozen=True)
class _Reply:
    """The reply to learn, in token ids, and which of them are rationale and answer.

    `prompt` is the number of the teacher's prompt.
    """

    id: str
    seed: Seed
    prompt: int
    token_ids: list[int]
    rationale: Range | None
    answer: Range | None
    frame: Frame | None
    by_teacher: bool  # if true, the ids are the teacher's; a trimmed vocabulary translates them


@dataclass(frozen=True)
class Encoder:
    """Makes the rows of one student in one form.

    If `same_tokenizer` is true, the rows have the teacher's ids, which `vocabulary` translates if
    it is given. Otherwise, or if the server gave no ids, the text is tokenised again and the
    teacher's distributions cannot be used.

    With `teacher`, the rows also have what a live teacher reads: its own prompt, and the completion
    in its own ids.
    """

    tokenizer: Tokenizer
    prompt: Prompt
    same_tokenizer: bool
    form: Form = "whole"
    rationale_weight: float | Literal["balanced"] = 1.0
    vocabulary: Vocabulary | None = None
    teacher: TeacherPrompts | None = None
    metric: str = "exact"  # of the task; it says which part of a ground truth is an answer

    def encode_sample(self, sample: Sample) -> list[Example]:
        """Return the rows of a teacher's sample: one, or one per part if the form is steps."""
        if not self.same_tokenizer or sample.token_ids is None:
            ended = sample.finish_reason == "stop"
            parts = _find_parts(sample.text, sample.rationale, sample.answer)
            reply = self._tokenised(sample.id, sample.seed, sample.text, *parts, ended)
            return self._rows(dataclasses.replace(reply, prompt=sample.prompt))
        reply = _Reply(
            id=sample.id,
            seed=sample.seed,
            prompt=sample.prompt,
            token_ids=sample.token_ids,
            rationale=sample.rationale_tokens,
            answer=sample.answer_tokens,
            frame=sample.frame,
            by_teacher=True,
        )
        return self._rows(reply)

    def encode_target(self, seed: Seed) -> list[Example]:
        """Return the rows of an example's ground truth, written as the student's prompt says."""
        front = self.prompt.front
        text = front.target_reply(seed, self.metric)
        rationale, answer = front.find_parts(text)
        if answer is None and self.form != "whole":
            raise PipelineError(
                f"{self.prompt.name}: no answer can be read in the ground truth of seed {seed.id} "
                f"as it is written here ({text[:60]!r}); "
                "let 'target:' write it with the answer's markers"
            )
        return self._rows(self._tokenised(seed.id, seed, text, rationale, answer, True))

    def _tokenised(
        self,
        identifier: str,
        seed: Seed,
        text: str,
        rationale: Range | None,
        answer: Range | None,
        ended: bool,
    ) -> _Reply:
        """Tokenise a reply whose rationale and answer are given as character ranges."""
        token_ids = self.tokenizer.encode_reply(text, self.prompt.is_chat)
        if not ended or text.endswith(tuple(self.prompt.front.stop)):
            token_ids = token_ids[:-1]

        def tokens(part: Range | None) -> Range | None:
            return self.tokenizer.token_range(token_ids, text, *part) if part else None

        return _Reply(
            identifier,
            seed,
            0,
            token_ids,
            tokens(rationale),
            tokens(answer),
            None,
            by_teacher=False,
        )

    def _rows(self, reply: _Reply) -> list[Example]:
        if self.form == "whole":
            return [self._row(reply, "", list(range(len(reply.token_ids))))]
        if reply.answer is None:
            raise NoAnswerError(
                f"sample {reply.id}: no answer can be read in it, "
                f"and form: {self.form} trains on the answer; "
                "turn on filter.parseable, or use form: whole"
            )
        if self.form == "answer":
            return [self._row(reply, "", _part(reply, reply.answer))]
        prefixes = self.prompt.front.prefixes
        rows = [self._row(reply, prefixes.answer, _part(reply, reply.answer))]
        if reply.rationale:
            rows.append(self._row(reply, prefixes.rationale, _part(reply, reply.rationale)))
        return rows

    def _row(self, reply: _Reply, prefix: str, places: list[int]) -> Example:
        """Return the row of the prompt and the tokens at `places` of the reply.

        After a gap in `places` the text before a token differs from the teacher's. So the teacher's
        distributions no longer apply there.
        """
        prompt = dataclasses.replace(self.prompt, prefix=prefix)
        prompt_ids = self.tokenizer.encode(prompt.render(reply.seed, self.tokenizer.control_tokens))
        if not prompt_ids:
            raise PipelineError(
                f"{prompt.name}: is empty for seed {reply.seed.id}; "
                "a completion needs at least one token before it"
            )
        ids = [reply.token_ids[place] for place in places]
        if self.vocabulary and reply.by_teacher:
            ids = self.vocabulary.ids(ids)
        rationale = range(*(reply.rationale or (0, 0)))
        weight = self._rationale_weight(reply)
        weights = [weight if place in rationale else 1.0 for place in places]
        if self.form != "whole" and places[-1:] != [len(reply.token_ids) - 1]:
            ids += self.tokenizer.encode_reply("", self.prompt.is_chat)
            weights.append(1.0)
        known = _before_gap(places) if reply.frame or self.teacher else 0
        rows = places[:known] + [UNKNOWN] * (len(ids) - known)
        row = make_example(reply.id, prompt_ids, ids, weights, rows)
        if not reply.frame and not self.teacher:
            return row
        teacher_ids = reply.token_ids
        if self.vocabulary and not reply.by_teacher:
            teacher_ids = self.vocabulary.teacher_ids(teacher_ids)
        prompt_ids = self.teacher.encode(reply.seed, reply.prompt) if self.teacher else []
        return dataclasses.replace(
            row,
            frame=reply.frame,
            teacher_ids=teacher_ids,
            teacher_prompt=prompt_ids,
            answer=reply.answer or (0, 0),
        )

    def _rationale_weight(self, reply: _Reply) -> float:
        """Return the weight of a token of the rationale. `balanced` divides the number of the
        answer's tokens by that of the rationale's; without either of them it is 1."""
        if not isinstance(self.rationale_weight, str):
            return self.rationale_weight
        parts = (reply.answer, reply.rationale)
        answer, rationale = (len(range(*(part or (0, 0)))) for part in parts)
        return answer / rationale if answer and rationale else 1.0


def fitting(examples: Sequence[Example], max_length: int) -> list[Example]:
    """Return the rows of at most `max_length` tokens. A longer one, if cut, would have no end."""
    return [example for example in examples if len(example.input_ids) <= max_length]


def long_rows(examples: Sequence[Example], max_length: int) -> str | None:
    """Say which rows are longer than `max_length` tokens, and what keeps them; None if none is.

    Raises PipelineError if they are more than one and more than MOST_LONG of all.
    """
    lengths = {e.id: len(e.input_ids) for e in examples if len(e.input_ids) > max_length}
    count = len(examples) - len(fitting(examples, max_length))
    if not count:
        return None
    longest = sorted(lengths, key=lambda name: -lengths[name])
    named = ", ".join(f"{name} ({lengths[name]:,} tokens)" for name in longest[:NAMED_ROWS])
    told = (
        f"{count:,} of {len(examples):,} rows are longer than train.max_length={max_length}: "
        f"{named}{', …' if len(lengths) > NAMED_ROWS else ''}"
    )
    remedy = f"train.max_length={lengths[longest[0]]} keeps all"
    if count == len(examples) or count > max(1, MOST_LONG * len(examples)):
        raise PipelineError(f"train: {told}; {remedy}, filter.max_tokens drops long replies")
    return f"{told}; they are left out, {remedy}"


def check_frames(
    examples: Iterable[Example],
    folder: Path,
    tokenizer: Tokenizer,
    vocab_size: int,
    vocabulary: Vocabulary | None = None,
) -> None:
    """Check that every row's frame belongs to the row. `vocab_size` is the student's.

    Raises PipelineError for a row without a frame, and for a frame of another tokenizer, other ids
    or another length.
    """
    files = TopKFolder(folder)
    for example in examples:
        where = f"sample {example.id}"
        if example.frame is None:
            raise PipelineError(
                f"{where}: has no logprobs, and kd needs them; "
                "generate with teacher.logprobs, or train sft arms only"
            )
        header = files.file(example.frame.file).header
        if header.tokenizer != (vocabulary.tokenizer if vocabulary else tokenizer.hash):
            raise PipelineError(
                f"{where}: its logprobs are by the tokenizer of {header.teacher}, "
                f"which differs from the student's ({tokenizer.name}), and kd needs the same "
                "vocabulary; choose another student, or train this one with method: sft"
            )
        try:
            topk = files.frame(example.frame, example.teacher_ids)
        except PipelineError as error:
            raise PipelineError(f"{where}: {error}") from None
        largest = (vocabulary.topk(topk) if vocabulary else topk).ids.max()
        if largest >= vocab_size:
            raise PipelineError(
                f"{where}: token id {largest} is beyond the student's vocabulary of {vocab_size}; "
                "choose another student"
            )


def _part(reply: _Reply, part: Range) -> list[int]:
    """Return the positions of one part, and of the tokens after the last part (such as the end)."""
    end = max(part[1], (reply.rationale or part)[1], (reply.answer or part)[1])
    return [*range(*part), *range(end, len(reply.token_ids))]


def _before_gap(places: list[int]) -> int:
    """Count the places before the first gap between them."""
    for index in range(1, len(places)):
        if places[index] != places[index - 1] + 1:
            return index
    return len(places)


def _find_parts(
    text: str, rationale: str | None, answer: str | None
) -> tuple[Range | None, Range | None]:
    """Find the characters of rationale and answer.

    A short answer may also occur in the rationale, so the text after the rationale is searched
    first.
    """
    begin = text.find(rationale) if rationale else -1
    if rationale is None or begin < 0:
        return None, _find(answer, text)
    end = begin + len(rationale)
    return (begin, end), _find(answer, text, end) or _find(answer, text, 0, begin)


def _find(part: str | None, text: str, *limits: int) -> Range | None:
    begin = text.find(part, *limits) if part else -1
    return (begin, begin + len(part)) if part and begin >= 0 else None
