"""The records that stages hand to one another: one JSON object a line, ids derived from content."""

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
    """The first `length` hex digits of the SHA-256 of `parts` as canonical JSON."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


class Record(BaseModel):
    """Frozen, strict about its keys, one line of JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_line(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes | str, where: str) -> Self:
        """Read one line; `where` ("file:line") opens the error if it is not one of these records."""
        try:
            return cls.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise PipelineError(
                f"{where}: not a {cls.__name__}: {field} {first['msg']}; was the file edited or cut?"
            ) from None


class Identified(Record):
    """A record that a shard can hold: its id tells it from every other one there."""

    id: str


class Seed(Identified):
    """One task input. `target` is the ground truth where it is known, `group` a slice for reports."""

    inputs: dict[str, Any]
    target: str | None = None
    group: str | None = None


class Frame(Record):
    """Where a sample's top-k logprobs lie: `nbytes` at `offset` of `file`, which stands beside the sample's own file.

    `crc32` is of these bytes and then of the sample's token ids, four bytes each.
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
    """One completion of the teacher. Its id is its seed's, a slash and its index.

    `token_ids` are the teacher's own (None where a server gives no ids). The prompt is not repeated in every sample: it is number
    `prompt` of the stage's prompts/ rendered with `seed`, and `prompt_digest` (of its token ids, or of its text) proves that it is.
    `rationale_tokens` and `answer_tokens` say which tokens the two were read from.
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
    """One request that has no record, and why. `number` is that of its seed (or of the row to be scored) in the source, from 0."""

    number: int
    index: int
    reason: FailureReason
    message: str


class Rejected(Identified):
    """One sample that a filter turned down: its number among the samples, which filter, its reason, the value that decided."""

    row: int
    filter: str
    reason: str
    value: str | float | int


class Score(Record):
    """How good one answer is: `value` in [0, 1], the answer that was read out of the completion, and why."""

    value: float
    answer: str | None = None
    explanation: str


class Scored(Identified):
    """One model's answer to one held-out seed.

    `confidence` is the probability that the model gave to its answer's tokens, all together; None where that is not known. The teacher's
    have token ids and frames under evaluate.fidelity, and `tails`: the mass outside each frame's entries, which frames round away.
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
    """How near a student is to the teacher over the teacher's answer to one held-out seed, whose id it has.

    `tokens` are those of the answer that the student could be asked about; `nats` is the sum of their forward KL, `same` how many of them
    have the same likeliest token. 0 tokens: the student's form or vocabulary has no place for this answer. `rouge_l` and `chrf` are of the
    student's own answer to the teacher's.
    """

    tokens: int
    nats: float
    same: int
    rouge_l: float
    chrf: float


class Memorised(Identified):
    """How far a student went on with one row as it was taught: `same` of the `tokens` that were left. `row` is the row's sample or seed, or
    the held-out answer that stands for one; `trained`: whether the student has seen it.
    """

    row: str
    trained: bool
    tokens: int
    same: int


@dataclass(frozen=True)
class Rendered:
    """A prompt for one seed: chat messages, or plain text to be continued."""

    messages: tuple[dict[str, str], ...] | None
    text: str | None

    def __str__(self) -> str:
        if self.text is not None:
            return self.text
        return "\n".join(
            f"[{message['role']}] {message['content']}" for message in self.messages or ()
        )


LEAKED = frozenset(
    {"holds_held_out", "near_held_out"}
)  # reasons of samples with text that models are evaluated on
