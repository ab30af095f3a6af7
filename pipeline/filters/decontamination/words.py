"""Split texts into words, without regard to case, punctuation, spacing and Unicode forms."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

UNSPACED = (  # Thai and Lao, Burmese, Khmer, Japanese and Chinese
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
JOINED = "\u3099\u309a\u102e"  # marks that NFKC joins with the character before, as か and ゙ to が
PIECE = re.compile(rf"[{UNSPACED}][{JOINED}]*|[^\s{UNSPACED}]+")
UNSPACED_CHAR = re.compile(f"[{UNSPACED}]")
SIGN = re.compile(r"(?<=\d)(?:\s+[-/\u2212]\s+|\s*[+*=<>^\u00d7÷]\s*)(?=[\d(])")
# one character of the private use area for each sign
SIGNS = dict(zip("-/\u2212+*=<>^\u00d7÷", map(chr, range(0xE000, 0xE010)), strict=False))
HINTS = ("+", "*", "=", "<", ">", "^", "\u00d7", "÷", " - ", " / ", "\u2212")
MARKS = frozenset(SIGNS.values())
FOREIGN = re.compile(rf"[{UNSPACED}\u02bc]|[^\w\x00-\x7f]")
ASCII = bytes(byte if byte > 127 or chr(byte).isalnum() else 32 for byte in range(256))
SENTENCE_ENDS = frozenset('\n.!?;:…"“”„«»()[]{}|。「」『』\uff01\uff1f\uff1b\uff1a\uff08\uff09')
AFTER = re.compile(r"\W*")
LETTER_UNIT = 0.5


@lru_cache(4096)
def _fold(char: str) -> str:
    category = unicodedata.category(char)
    if category == "Cf" or char in "\u2019\u02bc\ufe0f":
        return ""
    if char in MARKS or is_unspaced(char):
        return f" {char} "
    return char if category[0] in "LMN" else " "


def is_unspaced(word: str) -> bool:
    """Return whether a word is one character of a script that puts no spaces between words."""
    return len(word) == 1 and word >= "\u0e00" and UNSPACED_CHAR.match(word) is not None


def words(text: str) -> list[str]:
    """Return the words of a text after NFKC and casefolding (Unicode Annex 15; section 3.13).

    Punctuation, symbols and white space separate words. Apostrophes and invisible characters are
    dropped, so "don’t" is "dont". An arithmetic sign between digits is a word (- and / only with
    spaces around them): 3 + 4 is not 3 * 4, and 0870-1234 is 0870 1234.
    """
    folded = unicodedata.normalize("NFKC", _mark_signs(text)).casefold()
    if not folded.isascii():
        folded = FOREIGN.sub(lambda match: _fold(match.group()), folded)
    return folded.encode(errors="replace").translate(ASCII, b"'`").decode().split()


def words_with_spans(text: str) -> list[tuple[str, int, int]]:
    """Return the same words, each with the span of characters of its piece of the text.

    Slower than `words`.
    """
    spans = []
    for piece in PIECE.finditer(_mark_signs(text)):
        spans += [(word, piece.start(), piece.end()) for word in words(piece.group())]
    return spans


def length_in_words(spelled: Sequence[str]) -> float:
    """Return the number of words, where a character of an unspaced script is half a word."""
    return len(spelled) - (1 - LETTER_UNIT) * sum(map(is_unspaced, spelled))


def numbers_in(spelled: Sequence[str]) -> str:
    """Return every digit and arithmetic sign of some words, in order."""
    return "".join(char for char in "".join(spelled) if char.isdigit() or char in MARKS)


def is_sentence(text: str, first: int, last: int) -> bool:
    """Return whether characters `first` to `last` - 1 stand between ends of sentences.

    Quotation marks and brackets count as such, and so do the ends of the text.
    """
    piece = text[first:last]
    start = _end_of_words(text, first)
    end = last + _length_of_non_words(text, last)
    opening = text[start:first] + piece[: _length_of_non_words(piece, 0)]
    closing = piece[_end_of_words(piece, len(piece)) :] + text[last:end]
    opens = not start or not SENTENCE_ENDS.isdisjoint(opening)
    return opens and (end == len(text) or not SENTENCE_ENDS.isdisjoint(closing))


def _length_of_non_words(text: str, start: int) -> int:
    match = AFTER.match(text, start)
    assert match is not None
    return len(match.group())


def _end_of_words(text: str, end: int) -> int:
    """Return where the last word before `end` ends."""
    while end and not (text[end - 1].isalnum() or text[end - 1] == "_"):
        end -= 1
    return end


def _mark_signs(text: str) -> str:
    if not any(hint in text for hint in HINTS):
        return text
    return SIGN.sub(lambda match: "".join(SIGNS.get(char, char) for char in match.group()), text)
