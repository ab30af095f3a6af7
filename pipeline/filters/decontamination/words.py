"""Texts as words, so that case, punctuation, spacing and the form of a character do not count."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

UNSPACED = (  # Thai and Lao, Burmese, Khmer, Japanese and Chinese
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
JOINED = "\u3099\u309a\u102e"  # marks that NFKC makes one character with the one before them, as か and ゙ are が
PIECE = re.compile(rf"[{UNSPACED}][{JOINED}]*|[^\s{UNSPACED}]+")
ONE = re.compile(f"[{UNSPACED}]")
SIGN = re.compile(r"(?<=\d)(?:\s+[-/\u2212]\s+|\s*[+*=<>^\u00d7÷]\s*)(?=[\d(])")
SIGNS = dict(
    zip("-/\u2212+*=<>^\u00d7÷", map(chr, range(0xE000, 0xE010)), strict=False)
)  # stand-ins of one character, from the private use area
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
    return f" {char} " if char in MARKS or unspaced(char) else char if category[0] in "LMN" else " "


def unspaced(word: str) -> bool:
    """Is it a character of a script that puts no spaces between words? Each is a word here."""
    return len(word) == 1 and word >= "\u0e00" and ONE.match(word) is not None


def words(text: str) -> list[str]:
    """The words of a text after NFKC and casefolding (Unicode Standard Annex 15; section 3.13).

    Punctuation, symbols and white space part words; apostrophes and invisible characters are dropped, so "don’t" is "dont". An arithmetic
    sign between digits is a word, - and / only with spaces around them: 3 + 4 is not 3 * 4, and 0870-1234 is 0870 1234.
    """
    folded = unicodedata.normalize("NFKC", _signed(text)).casefold()
    if not folded.isascii():
        folded = FOREIGN.sub(lambda found: _fold(found.group()), folded)
    return folded.encode(errors="replace").translate(ASCII, b"'`").decode().split()


def placed(text: str) -> list[tuple[str, int, int]]:
    """The same words, each with the first and the last + 1 character of the piece of text in which it stands. Slower than `words`."""
    return [
        (word, piece.start(), piece.end())
        for piece in PIECE.finditer(_signed(text))
        for word in words(piece.group())
    ]


def units(spelled: Sequence[str]) -> float:
    """How many words a text has for rules about its length, where a character of an unspaced script counts as half a word."""
    return len(spelled) - (1 - LETTER_UNIT) * sum(map(unspaced, spelled))


def number(spelled: Sequence[str]) -> str:
    """Every digit and arithmetic sign of some words, in order."""
    return "".join(char for word in spelled for char in word if char.isdigit() or char in MARKS)


def is_sentence(text: str, first: int, last: int) -> bool:
    """Do the pieces from character `first` to `last` - 1 stand alone, between ends of sentences, quotation marks or brackets?"""
    start, end = _words_end(text, first), last + len(AFTER.match(text, last).group())  # type: ignore[union-attr]
    piece = text[first:last]
    opening = text[start:first] + AFTER.match(piece).group()  # type: ignore[union-attr]
    closing = piece[_words_end(piece, len(piece)) :] + text[last:end]
    return (not start or not SENTENCE_ENDS.isdisjoint(opening)) and (
        end == len(text) or not SENTENCE_ENDS.isdisjoint(closing)
    )


def _words_end(text: str, end: int) -> int:
    """Where the last word before `end` ends."""
    while end and not (text[end - 1].isalnum() or text[end - 1] == "_"):
        end -= 1
    return end


def _signed(text: str) -> str:
    if not any(hint in text for hint in HINTS):
        return text
    return SIGN.sub(lambda found: "".join(SIGNS.get(char, char) for char in found.group()), text)
