"""Rationale and answer of a completion: by tags in the text, or, for reasoning models, by the id of the end-of-thinking token."""

from pipeline.errors import PipelineError
from pipeline.models import Completion
from pipeline.models.tokenizer import Tokenizer
from pipeline.prompts import Prompt


def read(prompt: Prompt, completion: Completion, tokenizer: Tokenizer | None) -> tuple[str | None, str | None]:
    """(rationale, answer), each None where it cannot be read."""
    if prompt.front.rationale != "think":
        return prompt.read(completion.text)
    if tokenizer is None or completion.token_ids is None:
        raise PipelineError(
            f"{prompt.name}: rationale: think needs token ids, which this server does not give; set teacher.tokenizer, or use tags"
        )
    thoughts, reply = tokenizer.split_thoughts(completion.token_ids)
    return thoughts, prompt.read(reply)[1]
