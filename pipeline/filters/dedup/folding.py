"""Case-folded texts as one array of code points, so that numpy can hash a whole batch at a time.

Case folding and character classes are those of Unicode, from `str.casefold` and `unicodedata`.
"""

import string
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint32]
Ends = NDArray[np.int64]

SPACE = ord(" ")
SEPARATOR = 0  # in `fold_words`: between words
# In `fold_words`: soft hyphens, joiners and variation selectors, which are dropped.
IGNORED = 0xFFFFFFFE
# In `fold_words`: a flag on characters that are words by themselves (ideographs, kana, Thai,
# symbols, emoji).
SINGLE = 1 << 31
MULTIPLE = 0xFFFFFFFF  # folds to several characters, which one table entry cannot hold
CODE_POINTS = 0x110000
# Ranges with case. All other code points are ideographs or for private use.
CASED = ((0, 0x20000), (0xE0000, 0xE0200))
OPERATORS = "%&*-/"  # punctuation in prose; a word by itself where it joins two operands
ALPHANUMERIC = string.ascii_letters + string.digits + "_\x7f"
OPERAND_END, OPERAND_START = ALPHANUMERIC + ")]}", ALPHANUMERIC + "([{\\"
MINUS = 0x2212  # the mathematical sign, which is folded to "-"
UNSPACED = (  # scripts written without spaces between words
    (0x0E00, 0x0F00), (0x1000, 0x10A0), (0x1780, 0x1800), (0x3040, 0x3100), (0x31F0, 0x3200),
    (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0xFF66, 0xFFA0), (0x20000, 0x32400),
)  # fmt: skip


def fold_texts(texts: Sequence[str]) -> list[bytes]:
    """Return each text in UTF-8, case folded, with each run of white space as one space.

    No text may begin or end with a space.
    """
    if all(map(str.isascii, texts)):
        folded = "".join(texts).encode().translate(_ascii_fold_table())
        codes, ends = _collapse_spaces(np.frombuffer(folded, np.uint8), _ends(texts, 0))
        content = codes.tobytes()
        return [content[start:end] for start, end in pairwise([0, *ends.tolist()])]
    codes, ends = _collapse_spaces(*_look_up_folded(texts, _fold_table(), ""))
    text = codes.tobytes().decode("utf-32-le", "surrogatepass")
    parts = [text[start:end] for start, end in pairwise([0, *ends.tolist()])]
    return [part.encode(errors="surrogatepass") for part in parts]


def _collapse_spaces(codes: NDArray[Any], ends: Ends) -> tuple[NDArray[Any], Ends]:
    space = codes == SPACE
    return _delete(codes, ends, np.flatnonzero(space[1:] & space[:-1]))


def fold_words(texts: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.bool_], Ends]:
    """Return all texts as one array: composed (NFC), case folded, SEPARATOR between words.

    A separator also follows each text. The second array marks the characters that are words by
    themselves, the third holds where each text ends (exclusive). If all is ASCII, a character
    takes one byte.
    """
    if all(map(str.isascii, texts)):
        joined = "\n".join([*texts, ""]).encode()
        ascii_codes: NDArray[Any] = np.frombuffer(
            bytearray(joined.translate(_ascii_word_table())), np.uint8
        )
        _drop_punctuation(np.frombuffer(joined, np.uint8), ascii_codes, 0x80)
        return ascii_codes & np.uint8(0x7F), ascii_codes > np.uint8(0x7F), _ends(texts, 1)
    composed = [text if text.isascii() else unicodedata.normalize("NFC", text) for text in texts]
    codes, ends = _look_up_folded(composed, _word_table(), "\n")
    points = _code_points(composed, "\n")
    if len(points) != len(codes):  # some characters fold to several
        points = _code_points([text.casefold() for text in composed], "\n")
    _drop_punctuation(points, codes, SINGLE)
    codes, ends = _delete(codes, ends, np.flatnonzero(codes == IGNORED))
    return codes & np.uint32(SINGLE - 1), codes >= np.uint32(SINGLE), ends


def _look_up_folded(texts: Sequence[str], table: Codes, after: str) -> tuple[Codes, Ends]:
    codes, ends = _look_up(texts, table, after)
    if (codes == MULTIPLE).any():
        return _look_up([text.casefold() for text in texts], table, after)
    return codes, ends


def _look_up(texts: Sequence[str], table: Codes, after: str) -> tuple[Codes, Ends]:
    return table.take(_code_points(texts, after)), _ends(texts, len(after))


def _code_points(texts: Sequence[str], after: str) -> Codes:
    return np.frombuffer(after.join([*texts, ""]).encode("utf-32-le", "surrogatepass"), np.uint32)


def _drop_punctuation(points: NDArray[Any], codes: NDArray[Any], single: int) -> None:
    """Make a separator, in place, of each of OPERATORS that is punctuation in its context.

    It is an operator between two operands, if both or neither have a space beside it: a * 1, x/y,
    2**3. A hyphen needs the spaces, or operands of one letter or digit: n-1. A minus sign before a
    number counts. Bullets, bold text, hyphens and dates are punctuation.
    """
    first, last = codes.dtype.type(single + ord("%")), codes.dtype.type(ord("/") - ord("%"))
    places = np.flatnonzero(codes - first <= last)  # + is among them, and stays
    places = places[_is_one_of(OPERATORS)[np.minimum(points[places], 0x7F)]]
    if not len(places):
        return

    def character(positions: NDArray[np.intp]) -> NDArray[Any]:
        inside = (positions >= 0) & (positions < len(points))
        found = points[np.where(inside, positions, 0)]
        return np.where(inside, np.minimum(found, 0x7F), ord("\n"))

    same = (character(places + 1) == points[places]).astype(np.intp)  # ** and // are one
    same_before = (character(places - 1) == points[places]).astype(np.intp)
    left, right = places - 1 - same_before, places + 1 + same
    spaces = (character(left) == SPACE).astype(np.intp), (character(right) == SPACE).astype(np.intp)
    start, end = character(left - spaces[0]), character(right + spaces[1])
    joins = _is_one_of(OPERAND_END)[start] & _is_one_of(OPERAND_START)[end]
    joins &= spaces[0] == spaces[1]
    dash = points[places] == ord("-")
    hyphen = dash & (spaces[0] == 0)
    alphanumeric = _is_one_of(ALPHANUMERIC)
    short = ~alphanumeric[character(left - 1)] & ~alphanumeric[character(right + 1)]
    joins &= ~hyphen | short
    joins &= ~(dash & ((same | same_before) > 0))
    is_digit = _is_one_of("0123456789")[character(right)]
    negates = dash & is_digit & ~alphanumeric[character(places - 1)]
    codes[places[~(joins | negates)]] = SEPARATOR


@cache
def _is_one_of(characters: str) -> NDArray[np.bool_]:
    """Return for each ASCII character whether it is one of these; 0x7F stands for all others."""
    table = np.zeros(0x80, bool)
    table[[ord(character) for character in characters]] = True
    return table


def _ends(texts: Sequence[str], after: int) -> Ends:
    return np.cumsum([len(text) + after for text in texts], dtype=np.int64)


def _delete(
    codes: NDArray[Any], ends: Ends, positions: NDArray[np.intp]
) -> tuple[NDArray[Any], Ends]:
    if not len(positions):
        return codes, ends
    return np.delete(codes, positions), ends - np.searchsorted(positions, ends)


@cache
def _fold_table() -> Codes:
    """Return the case folding of each code point; white space is SPACE."""

    def fold(character: str) -> int:
        if character.isspace():
            return SPACE
        folded = character.casefold()
        return ord(folded) if len(folded) == 1 else MULTIPLE

    return _table(fold)


@cache
def _word_table() -> Codes:
    """Return the case folding of each code point, with SINGLE added; or SEPARATOR, or IGNORED."""
    fold_table = _fold_table()

    def classify(character: str) -> int:
        category = unicodedata.category(character)
        if character in OPERATORS or ord(character) == MINUS:
            return SINGLE | ord("-" if ord(character) == MINUS else character)
        if category == "Cf" or _is_variation_selector(character):
            return IGNORED
        if category[0] in "ZPC":
            return SEPARATOR
        return int(fold_table[ord(character)]) | (SINGLE if category[0] == "S" else 0)

    table = _table(classify)
    for first, end in UNSPACED:
        script = table[first:end]
        script[(script != SEPARATOR) & (script < SINGLE)] |= SINGLE
    return table


def _is_variation_selector(character: str) -> bool:
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"


@cache
def _ascii_fold_table() -> bytes:
    return bytes(_fold_table()[:0x80].tolist()) + bytes(0x80)


@cache
def _ascii_word_table() -> bytes:
    """Return `_word_table` in one byte a character, with SINGLE as the highest bit."""
    table = _word_table()[:0x80]
    return bytes((table | (table >> np.uint32(24))).astype(np.uint8).tolist()) + bytes(0x80)


def _table(code_of: Callable[[str], int]) -> Codes:
    table = np.arange(CODE_POINTS, dtype=np.uint32)
    for first, end in CASED:
        table[first:end] = [code_of(chr(point)) for point in range(first, end)]
    return table
