"""Read rationale and answer out of a completion.

They are found by markers in the text, or for reasoning models by the end-of-thinking token.
"""

from dataclasses import dataclass

from pipeline.data.prompts import Prompt
from pipeline.errors import PipelineError
from pipeline.models.base import Completion
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Range


@dataclass(frozen=True)
class Reading:
    """Rationale and answer, each None where it is missing.

    The ranges are tokens of the completion; None for a completion without token ids.
    """

    rationale: str | None
    rationale_tokens: Range | None
    answer: str | None
    answer_tokens: Range | None


def read(prompt: Prompt, completion: Completion, tokenizer: Tokenizer | None) -> Reading:
    """Read a completion by the front matter of its prompt."""
    if prompt.front.rationale == "think":
        return _think(prompt, completion, tokenizer)
    rationale = prompt.front.rationale.find(completion.text) if prompt.front.rationale else None
    answer = prompt.front.answer.find(completion.text)
    ids = completion.token_ids if tokenizer else None
    return Reading(
        *_part(completion.text, rationale, ids, tokenizer),
        *_part(completion.text, answer, ids, tokenizer),
    )


def _think(prompt: Prompt, completion: Completion, tokenizer: Tokenizer | None) -> Reading:
    if tokenizer is None or completion.token_ids is None:
        raise PipelineError(
            f"{prompt.name}: rationale: think needs token ids, which this server does not give; "
            "set teacher.tokenizer, or use markers"
        )
    ids = completion.token_ids
    rationale = rationale_tokens = None
    begin = 0
    if tokenizer.end_of_thinking in ids:
        end = ids.index(tokenizer.end_of_thinking)
        rationale = tokenizer.decode(ids[:end]).replace("<think>", "").strip() or None
        rationale_tokens = (0, end) if rationale else None
        begin = end + 1
    reply = tokenizer.decode(ids[begin:])
    answer, tokens = _part(reply, prompt.front.answer.find(reply), ids[begin:], tokenizer)
    answer_tokens = (tokens[0] + begin, tokens[1] + begin) if tokens else None
    return Reading(rationale, rationale_tokens, answer, answer_tokens)


def _part(
    text: str, place: tuple[int, int] | None, ids: list[int] | None, tokenizer: Tokenizer | None
) -> tuple[str | None, Range | None]:
    """Return a part of the text, given by its characters, and its tokens."""
    if place is None:
        return None, None
    begin, end = place
    if tokenizer is None or ids is None:
        return text[begin:end], None
    return text[begin:end], tokenizer.token_range(ids, text, begin, end)
