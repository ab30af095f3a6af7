"""Find the Markdown code blocks in an answer."""

import re
import textwrap
from dataclasses import dataclass

OPENING = re.compile(r"(?P<indent>[ \t>]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+#-]*)[^`]*")
ONE_LINE = re.compile(r"\s*```(?:[\w+-]+(?=\s))?([^`\n]+)```\s*")


@dataclass(frozen=True)
class Block:
    """A code block: its language, if it names one, and its text."""

    language: str
    text: str


def code_blocks(text: str) -> tuple[list[Block], bool]:
    """Return the code blocks of a text, and whether there is nothing but blank lines around them.

    Lines may end in any way. A block without an end goes on to the end of the text.
    """
    blocks: list[Block] = []
    is_alone = True
    inside: list[str] | None = None
    fence = language = ""
    for line in re.split(r"\r\n|\r|\n", text):
        if inside is None:
            if opening := OPENING.fullmatch(line):
                fence, language = opening["fence"], opening["language"].lower()
                inside = []
            elif line.strip():
                is_alone = False
        elif line.strip(" \t>").startswith(fence) and not line.strip(" \t>").strip(fence[0]):
            blocks.append(Block(language, textwrap.dedent("\n".join(inside))))
            inside = None
        else:
            inside.append(line)
    if inside is not None:
        blocks.append(Block(language, textwrap.dedent("\n".join(inside))))
    return blocks, is_alone


def unfenced(text: str) -> str:
    """Return the inside of a text that is one Markdown code block; any other text unchanged."""
    if match := ONE_LINE.fullmatch(text):
        return match.group(1)
    blocks, is_alone = code_blocks(text)
    return blocks[0].text if is_alone and len(blocks) == 1 else text


def last_block(text: str) -> str:
    """Return the last code block of a text with sentences around it; else as `unfenced`."""
    blocks, _ = code_blocks(text)
    if not blocks or text.lstrip()[:1] in ("{", "[", '"'):  # JSON that holds a block
        return unfenced(text)
    return blocks[-1].text
