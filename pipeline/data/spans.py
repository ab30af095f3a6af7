"""Find the parts of a reply by their markers."""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict

STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)
CLOSING = {"{": "}", "(": ")", "[": "]"}
THINK, END_OF_THINKING = "<think>", "</think>"


def _closing(text: str, begin: int, opening: str) -> int | None:
    """Return where the bracket is that closes the one before `begin`; None if there is none."""
    depth = 1
    for match in re.finditer(rf"\\\\.|[{re.escape(opening + CLOSING[opening])}]", text[begin:]):
        if match.group() == opening:
            depth += 1
        elif match.group() == CLOSING[opening]:
            depth -= 1
        if not depth:
            return begin + match.start()
    return None


class Span(BaseModel):
    """A part of the reply, between two markers. White space around the part is left out."""

    model_config = STRICT
    start: str = ""
    """marker before the part; empty: the part begins where the reply begins"""
    end: str | list[str] = ""
    """marker after the part, or a list: the one that appears first in the text counts; empty: the
    part goes to the end of the reply; a bracket is the one that closes the bracket of `start`"""
    open: bool = False
    """if true, the part may run to the end of the reply when `end` is missing; always allowed if
    one of `end` is white space"""
    occurrence: Literal["first", "last"] | None = None
    """which one counts if there are several; left out: the last for an answer behind a rationale,
    because a rationale may quote the marker or correct itself; else the first"""

    def find(self, text: str, begin: int = 0, last: bool = False) -> tuple[int, int] | None:
        """Return where the part begins and ends, without outer white space.

        Return None if the part is missing or empty. `begin`: where the search begins. `last`: the
        last part counts, unless `occurrence` says otherwise.
        """
        last = self.occurrence == "last" if self.occurrence else last
        if not last or not self.start:
            return self._part(text, text.find(self.start, begin))
        found = None
        start = text.find(self.start, begin)
        while start >= 0:
            inside = start + len(self.start)
            end, length = self._end(text, inside)
            if CLOSING.get(self.start[-1:]) is None and end is not None:
                start = max(start, text.rfind(self.start, inside, end))  # the first was only named
            found = self._part(text, start) or found
            start = text.find(self.start, inside if end is None else max(inside, end + length))
        return found

    def _part(self, text: str, start: int) -> tuple[int, int] | None:
        """Return the part behind the marker at `start`."""
        if start < 0:
            return None
        begin = start + len(self.start)
        end, _ = self._end(text, begin)
        may_be_cut = self.open or any(marker.strip() == "" for marker in self.ends)
        if end is None and not may_be_cut:
            return None
        part = text[begin : len(text) if end is None else end]
        if self.start[-1:] in CLOSING and part.strip().startswith(self.start):  # one box in another
            return self._part(text, text.find(self.start, begin))
        begin += len(part) - len(part.lstrip())
        return (begin, begin + len(part.strip())) if part.strip() else None

    def _end(self, text: str, begin: int) -> tuple[int | None, int]:
        """Return where the marker behind the part is, and its length."""
        if CLOSING.get(self.start[-1:]) in self.ends:
            return _closing(text, begin, self.start[-1]), 1
        places = [(text.find(end, begin), len(end)) for end in self.ends if end]
        return min((place for place in places if place[0] >= 0), default=(None, 0))

    @property
    def ends(self) -> list[str]:
        """Return the markers behind the part as a list."""
        return [self.end] if isinstance(self.end, str) else self.end
