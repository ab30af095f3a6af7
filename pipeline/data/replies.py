"""Rationale and answer of a completion: by tags in the text, or, for reasoning models, by the id of the end-of-thinking token."""

from dataclasses import dataclass

from pipeline.data.prompts import Prompt
from pipeline.errors import PipelineError
from pipeline.models.base import Completion
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Range


@dataclass(frozen=True)
class Reading:
    """What was read, each None where it cannot be; the ranges are tokens of the completion, where there are token ids."""

    rationale: str | None
    rationale_tokens: Range | None
    answer: str | None
    answer_tokens: Range | None


def read(prompt: Prompt, completion: Completion, tokenizer: Tokenizer | None) -> Reading:
    """Rationale and answer, by the front matter of the prompt that was asked."""
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
            f"{prompt.name}: rationale: think needs token ids, which this server does not give; set teacher.tokenizer, or use tags"
        )
    end = tokenizer.end_of_thinking
    ids = completion.token_ids
    at = ids.index(end) if end in ids else -1
    thoughts = tokenizer.decode(ids[:at]).replace("<think>", "").strip() if at >= 0 else ""
    reply = tokenizer.decode(ids[at + 1 :])
    answer, tokens = _part(reply, prompt.front.answer.find(reply), ids[at + 1 :], tokenizer)
    shifted = (tokens[0] + at + 1, tokens[1] + at + 1) if tokens else None
    return Reading(thoughts or None, (0, at) if thoughts else None, answer, shifted)


def _part(
    text: str, place: tuple[int, int] | None, ids: list[int] | None, tokenizer: Tokenizer | None
) -> tuple[str | None, Range | None]:
    """A part of the text, given by its characters, and its tokens."""
    if place is None:
        return None, None
    begin, end = place
    return text[begin:end], tokenizer.token_range(
        ids, text, begin, end
    ) if tokenizer and ids is not None else None
