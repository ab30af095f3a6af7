"""Remove the Markdown code block around an answer."""

import re

FENCE = re.compile(r"\s*```[\w+-]*[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL)


def unfenced(text: str) -> str:
    """Return the inside of a text that is one Markdown code block; any other text unchanged."""
    match = FENCE.fullmatch(text)
    return match.group(1) if match else text
