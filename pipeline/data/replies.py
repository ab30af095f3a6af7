"""Read rationale and answer out of a completion.

They are found by markers in the text, or for reasoning models by the end-of-thinking token.
"""

from dataclasses import dataclass

from pipeline.data.prompts import Prompt
from pipeline.data.spans import END_OF_THINKING, THINK, Span
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
    reasoning = (completion.reasoning or "").strip() or None
    if prompt.front.rationale == "think" and not (reasoning and completion.token_ids is None):
        return _think(prompt, completion, tokenizer)
    text = completion.text
    thought = _end_of_thought(text, prompt)
    if thought is None:
        return Reading(None, None, None, None)
    rationale, answer = prompt.front.find_parts(text[thought:])
    ids = completion.token_ids if tokenizer else None
    if rationale is None and prompt.front.rationale and reasoning:  # it came beside the text
        return Reading(reasoning, None, *_part(text, _moved(answer, thought), ids, tokenizer))
    return Reading(
        *_part(text, _moved(rationale, thought), ids, tokenizer),
        *_part(text, _moved(answer, thought), ids, tokenizer),
    )


def _end_of_thought(text: str, prompt: Prompt) -> int | None:
    """Return where the reply begins behind <think>…</think>; None if the thought has no end."""
    front = prompt.front
    markers = [front.answer.start]
    if isinstance(front.rationale, Span):
        markers += [front.rationale.start, *front.rationale.ends]
    if not text.lstrip().startswith(THINK) or any("think>" in marker for marker in markers):
        return 0
    end = text.rfind(END_OF_THINKING)
    return None if end < 0 else end + len(END_OF_THINKING)


def _moved(place: tuple[int, int] | None, by: int) -> tuple[int, int] | None:
    return None if place is None else (place[0] + by, place[1] + by)


def _think(prompt: Prompt, completion: Completion, tokenizer: Tokenizer | None) -> Reading:
    if tokenizer is None or completion.token_ids is None:
        raise PipelineError(
            f"{prompt.name}: rationale: think needs token ids, which this server does not give; "
            "set teacher.tokenizer, or use markers"
        )
    ids = completion.token_ids
    rationale = rationale_tokens = None
    begin = 0
    is_cut = completion.finish_reason == "length" or completion.text.lstrip().startswith(THINK)
    if tokenizer.end_of_thinking in ids:
        end = ids.index(tokenizer.end_of_thinking)
        begin = end + 1
    elif is_cut:  # nothing but thoughts
        end = begin = len(ids)
    else:
        end = 0
    if end:
        rationale = tokenizer.decode(ids[:end]).replace(THINK, "").strip() or None
        rationale_tokens = (0, end) if rationale else None
    reply = tokenizer.decode(ids[begin:])
    _, place = prompt.front.find_parts(reply)
    answer, tokens = _part(reply, place, ids[begin:], tokenizer)
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
