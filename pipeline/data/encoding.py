"""From samples to training rows: the student's own prompt, the reply by the teacher's token ids, its distributions named token by token.

Alignment fails closed: tokenizer, ids and lengths are checked row by row before training begins.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Form
from pipeline.data.prompts import Prompt, Span
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import NoAnswerError, PipelineError
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Frame, Range, Sample, Seed
from pipeline.storage.topk import TopKFolder

IGNORED = -100  # label of a token that bears no loss
UNKNOWN = -1  # a token of which no distribution is known


@dataclass(frozen=True)
class Example:
    """One row. The lists have one entry a token.

    `labels` is IGNORED on the prompt and the token itself on the reply, `weights` counts in its loss, `rows` says which row of the frame
    holds what the teacher thought of it. The frame is about `teacher_ids`, the teacher's whole completion in its own ids.
    """

    id: str
    input_ids: list[int]
    labels: list[int]
    weights: list[float]
    rows: list[int]
    frame: Frame | None = None
    teacher_ids: list[int] = dataclasses.field(default_factory=list)


@dataclass(frozen=True)
class _Reply:
    """What is learned of one sample: its ids by the teacher's vocabulary, and which of them are rationale and answer."""

    id: str
    seed: Seed
    token_ids: list[int]
    rationale: Range | None
    answer: Range | None
    frame: Frame | None
    foreign: bool  # whether the ids are the teacher's, to be translated for a student with a vocabulary of its own


@dataclass(frozen=True)
class Encoder:
    """Makes the rows of one student in one form.

    `same_tokenizer`: the student's tokenizer is the teacher's, so the teacher's ids are used as they are, or through `vocabulary`; otherwise, and
    where a server gave none, the text is tokenised anew and the frames cannot be used.
    """

    tokenizer: Tokenizer
    prompt: Prompt
    same_tokenizer: bool
    form: Form = "whole"
    rationale_weight: float = 1.0
    vocabulary: Vocabulary | None = None

    def encode_sample(self, sample: Sample) -> list[Example]:
        """The rows of a teacher's sample: one, or under step by step one for each part that it has."""
        if not self.same_tokenizer or sample.token_ids is None:
            places = _places(sample.text, sample.rationale, sample.answer)
            return self._rows(
                self._tokenised(
                    sample.id,
                    sample.seed,
                    sample.text,
                    *places,
                    ended=sample.finish_reason == "stop",
                )
            )
        tokens = sample.rationale_tokens, sample.answer_tokens
        return self._rows(
            _Reply(sample.id, sample.seed, sample.token_ids, *tokens, sample.frame, foreign=True)
        )

    def encode_target(self, seed: Seed) -> list[Example]:
        """The rows of a seed's ground truth, written as the student's prompt says."""
        text = self.prompt.front.target_reply(seed)
        front = self.prompt.front
        rationale = front.rationale.find(text) if isinstance(front.rationale, Span) else None
        answer = front.answer.find(text)
        if answer is None and self.form != "whole":
            raise PipelineError(
                f"{self.prompt.name}: no answer can be read in the ground truth of seed {seed.id} as it is written here ({text[:60]!r}); "
                "let 'target:' write it with the answer's tags"
            )
        return self._rows(self._tokenised(seed.id, seed, text, rationale, answer, ended=True))

    def _tokenised(
        self,
        identifier: str,
        seed: Seed,
        text: str,
        rationale: Range | None,
        answer: Range | None,
        ended: bool,
    ) -> _Reply:
        """A reply of which only the text is known, and which characters of it are rationale and answer."""
        token_ids = self.tokenizer.encode_reply(text)
        if not ended or text.endswith(tuple(self.prompt.front.stop)):
            token_ids = token_ids[:-1]
        tokens = [
            self.tokenizer.token_range(token_ids, text, *place) if place else None
            for place in (rationale, answer)
        ]
        return _Reply(identifier, seed, token_ids, tokens[0], tokens[1], None, foreign=False)

    def _rows(self, reply: _Reply) -> list[Example]:
        whole = len(reply.token_ids)
        if self.form == "whole":
            return [self._row(reply, "", list(range(whole)))]
        if reply.answer is None:
            raise NoAnswerError(
                f"sample {reply.id}: no answer can be read in it, and form: {self.form} trains on the answer; turn on filter.parseable, "
                "or use form: whole"
            )
        prefixes = self.prompt.front.prefixes
        if self.form == "answer":
            return [self._row(reply, "", _part(reply, reply.answer))]
        rows = [self._row(reply, prefixes.answer, _part(reply, reply.answer))]
        return rows + (
            [self._row(reply, prefixes.rationale, _part(reply, reply.rationale))]
            if reply.rationale
            else []
        )

    def _row(self, reply: _Reply, prefix: str, places: list[int]) -> Example:
        """The tokens at `places` of the reply behind the prompt; from where they jump on, the teacher's distribution is of another text."""
        begin = self.tokenizer.encode(
            dataclasses.replace(self.prompt, prefix=prefix).render(
                reply.seed, self.tokenizer.control_tokens
            )
        )
        if not begin:
            raise PipelineError(
                f"{self.prompt.name}: is empty for seed {reply.seed.id}; a completion needs at least one token before it"
            )
        ids = [reply.token_ids[place] for place in places]
        ids = self.vocabulary.ids(ids) if self.vocabulary and reply.foreign else ids
        jumps = [index for index in range(1, len(places)) if places[index] != places[index - 1] + 1]
        known = (jumps[0] if jumps else len(places)) if reply.frame else 0
        thought = range(*(reply.rationale or (0, 0)))
        weights = [self.rationale_weight if place in thought else 1.0 for place in places]
        if self.form != "whole" and places[-1:] != [len(reply.token_ids) - 1]:
            ids, weights = [*ids, self.tokenizer.hf.eos_token_id], [*weights, 1.0]
        blank = len(begin)
        return Example(
            id=reply.id,
            input_ids=begin + ids,
            labels=[IGNORED] * blank + ids,
            weights=[0.0] * blank + weights,
            rows=[UNKNOWN] * blank + places[:known] + [UNKNOWN] * (len(ids) - known),
            frame=reply.frame,
            teacher_ids=reply.token_ids if reply.frame else [],
        )


def check_lengths(examples: Sequence[Example], max_length: int) -> None:
    """Refuse rows that would have to be cut."""
    long = [example for example in examples if len(example.input_ids) > max_length]
    if long:
        worst = max(long, key=lambda example: len(example.input_ids))
        raise PipelineError(
            f"train: {len(long):,} rows are longer than train.max_length={max_length}, the longest (sample {worst.id}) "
            f"{len(worst.input_ids)} tokens; raise train.max_length, or drop long completions with filter.max_tokens"
        )


def check_frames(
    examples: Iterable[Example],
    folder: Path,
    tokenizer: Tokenizer,
    vocab_size: int,
    vocabulary: Vocabulary | None = None,
) -> None:
    """Hold every row's frame against the row. `vocab_size` is the student's.

    Raises PipelineError if a row has no frame, another tokenizer wrote it, or its ids or length are not the row's.
    """
    files = TopKFolder(folder)
    for example in examples:
        where = f"sample {example.id}"
        if example.frame is None:
            raise PipelineError(
                f"{where}: has no logprobs, and kd needs them; generate with teacher.logprobs, or train sft arms only"
            )
        header = files.file(example.frame.file).header
        if header.tokenizer != (vocabulary.tokenizer if vocabulary else tokenizer.hash):
            raise PipelineError(
                f"{where}: its logprobs are by the tokenizer of {header.teacher}, which differs from the student's ({tokenizer.name}); "
                "kd needs a student of the same vocabulary. Choose one, or train this student with method: sft"
            )
        try:
            topk = files.frame(example.frame, example.teacher_ids)
        except PipelineError as error:
            raise PipelineError(f"{where}: {error}") from None
        largest = (vocabulary.topk(topk) if vocabulary else topk).ids.max()
        if largest >= vocab_size:
            raise PipelineError(
                f"{where}: token id {largest} is beyond the student's vocabulary of {vocab_size}; choose another student"
            )


def _part(reply: _Reply, part: Range) -> list[int]:
    """The places of one part and of what closes the whole reply."""
    last = max(end for _, end in (reply.rationale or part, reply.answer or part))
    return [*range(*part), *range(max(last, part[1]), len(reply.token_ids))]


def _places(
    text: str, rationale: str | None, answer: str | None
) -> tuple[Range | None, Range | None]:
    """The characters of the two parts, of which only the texts are known. A short answer may also occur within its rationale."""
    thought = text.find(rationale) if rationale else -1
    behind = thought + len(rationale or "")
    at = -1
    if answer:
        at = text.find(answer, behind) if thought >= 0 else text.find(answer)
        at = at if at >= 0 else text.find(answer, 0, thought)
    return (thought, behind) if thought >= 0 else None, (
        at,
        at + len(answer or ""),
    ) if at >= 0 else None
