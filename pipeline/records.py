"""The records that stages pass to one another: one JSON object per line, ids made from content."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import PipelineError

FinishReason = Literal["stop", "length", "abort", "error", "repetition", "content_filter"]
FailureReason = Literal[
    "too_long",
    "template_error",
    "refused",
    "timed_out",
    "server_error",
    "engine_error",
    "misaligned",
]


def digest(*parts: Any, length: int = 16) -> str:
    """Return the first `length` hex digits of the SHA-256 of `parts` as canonical JSON."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


class Record(BaseModel):
    """Base of all records: frozen, without unknown keys, one line of JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_line(self) -> bytes:
        """Return the record as a line of JSON, without keys that are None."""
        return self.model_dump_json(exclude_none=True).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes | str, where: str) -> Self:
        """Read one line. Raises PipelineError, whose message begins with `where` ("file:line")."""
        try:
            return cls.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise PipelineError(
                f"{where}: not a {cls.__name__}: {field} {first['msg']}; "
                "was the file edited or cut?"
            ) from None


class Identified(Record):
    """A record that a shard can hold: its id is unique there."""

    id: str


class Seed(Identified):
    """One input of the task. `target` is its ground truth if known, `group` a slice for reports."""

    inputs: dict[str, Any]
    target: str | None = None
    group: str | None = None


class Frame(Record):
    """Where a sample's top-k logprobs are stored: `nbytes` bytes at `offset` of `file`.

    `file` is in the sample's folder. `crc32` is the checksum of these bytes followed by the
    sample's token ids, four bytes each.
    """

    file: str
    offset: int
    nbytes: int
    crc32: int


class Usage(Record):
    """Token counts of one request."""

    prompt_tokens: int
    completion_tokens: int


Range = tuple[int, int]  # tokens of a completion, first to last + 1


class Sample(Identified):
    """One completion of the teacher. Its id is its seed's id, a slash and its index.

    `token_ids` are the teacher's; None if the server gives none. The prompt is not stored in every
    sample: it is the stage's file prompts/N.md, N being `prompt`, rendered with `seed`. To check
    that, compare `prompt_digest`, the hash of its token ids or text. `rationale_tokens` and
    `answer_tokens` are the tokens that rationale and answer were read from.
    """

    seed: Seed
    index: int
    prompt: int = 0
    teacher: str
    prompt_digest: str
    sampling_seed: int | None = None
    token_ids: list[int] | None = None
    text: str
    rationale: str | None = None
    rationale_tokens: Range | None = None
    answer: str | None = None
    answer_tokens: Range | None = None
    finish_reason: FinishReason
    usage: Usage
    frame: Frame | None = None


class Failed(Identified):
    """One failed request, and why it failed.

    `number` is the position of its seed, or of the row to score, in the source, from 0.
    """

    number: int
    index: int
    reason: FailureReason
    message: str


class Rejected(Identified):
    """One rejected sample: its number among the samples, the filter, its reason and its value."""

    row: int
    filter: str
    reason: str
    value: str | float | int


class Score(Record):
    """How good one answer is: `value` in [0, 1], the answer read from the completion, and why."""

    value: float
    answer: str | None = None
    explanation: str


class Scored(Identified):
    """One model's answer to one held-out example.

    `confidence` is the joint probability of the answer's tokens; None if it is not known. If
    evaluate.fidelity is set, the teacher's answers have token ids, frames and `tails`. A tail is
    the probability outside a token's stored entries. It is stored here because the value in the
    frame is too coarse for a KL.
    """

    seed_id: str
    group: str | None = None
    target: str | None = None
    model: str
    text: str
    finish_reason: FinishReason
    usage: Usage
    score: Score
    confidence: float | None = None
    token_ids: list[int] | None = None
    frame: Frame | None = None
    tails: list[float] | None = None


class Faithful(Identified):
    """How close a student is to the teacher on the teacher's answer to one held-out example.

    The id is the seed's. `tokens` is the number of tokens compared. It is 0 if the arm's `form` or
    the student's vocabulary cannot express the answer. `nats` is the sum of the tokens' forward
    KL. `same` is the number of tokens for which both models have the same most likely token.
    `rouge_l` and `chrf` compare the student's own answer with the teacher's.
    """

    tokens: int
    nats: float
    same: int
    rouge_l: float
    chrf: float


class Memorised(Identified):
    """How much of the rest of a row a student repeats, given the row's start.

    The rest has `tokens` tokens, and the first difference comes after `same` of them.

    `row` is the id of the row's sample or seed, or of a held-out answer used as a row. `trained` is
    true if the student was trained on it.
    """

    row: str
    trained: bool
    tokens: int
    same: int


@dataclass(frozen=True)
class Rendered:
    """A prompt for one seed: chat messages, or plain text to continue."""

    messages: tuple[dict[str, str], ...] | None
    text: str | None

    def __str__(self) -> str:
        if self.text is not None:
            return self.text
        return "\n".join(
            f"[{message['role']}] {message['content']}" for message in self.messages or ()
        )


# reasons of samples that hold text on which models are evaluated
LEAKED = frozenset({"holds_held_out", "near_held_out"})
