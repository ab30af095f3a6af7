"""What verifiers do to a text before they read it."""

import re

FENCE = re.compile(r"\s*```[\w+-]*[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL)


def unfenced(text: str) -> str:
    """The inside of a text that is one Markdown code block as a whole; any other text as it is."""
    match = FENCE.fullmatch(text)
    return match.group(1) if match else text
