"""Texts as one array of code points, folded: what numpy can hash a whole batch of at a time.

Case folding and the classes of characters are Unicode's, by way of `str.casefold` and `unicodedata`.
"""

import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint32]

SPACE = ord(" ")
SEPARATOR, IGNORED = (
    0,
    0xFFFFFFFE,
)  # in `words`: between words; not there at all (soft hyphens, joiners, variation selectors)
ALONE = (
    1 << 31
)  # in `words`: added to a character that is a word by itself (ideographs, kana, Thai, symbols, emoji)
WIDENED = 0xFFFFFFFF  # folds to several characters, which a table cannot say
POINTS = 0x110000
SPEAKING = (
    (0, 0x20000),
    (0xE0000, 0xE0200),
)  # what lies outside has no case; it is ideographs and private use
UNSPACED = (  # scripts written without spaces between words
    (0x0E00, 0x0F00), (0x1000, 0x10A0), (0x1780, 0x1800), (0x3040, 0x3100), (0x31F0, 0x3200), (0x3400, 0x4DC0), (0x4E00, 0xA000),
    (0xF900, 0xFB00), (0xFF66, 0xFFA0), (0x20000, 0x32400),
)  # fmt: skip


def whole(texts: Sequence[str]) -> list[bytes]:
    """Each text case folded, runs of white space as one space, in UTF-8. None may begin or end with a space."""
    if all(map(str.isascii, texts)):
        narrow: NDArray[Any] = np.frombuffer(
            "".join(texts).encode().translate(_ascii_folded()), np.uint8
        )
        codes, ends = _spaced(narrow, _ends(texts, 0))
        content = codes.tobytes()
        return [content[start:end] for start, end in pairwise([0, *ends.tolist()])]
    codes, ends = _spaced(*_stream(texts, _folded(), ""))
    text = codes.tobytes().decode("utf-32-le", "surrogatepass")
    return [
        text[start:end].encode(errors="surrogatepass")
        for start, end in pairwise([0, *ends.tolist()])
    ]


def _spaced(codes: NDArray[Any], ends: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    space = codes == SPACE
    return _without(codes, ends, np.flatnonzero(space[1:] & space[:-1]))


def words(texts: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.int64]]:
    """Canonically composed (NFC), case folded, SEPARATOR between words and after each text.

    The texts one after the other, which of their characters are words by themselves, and where each text ends (exclusive). Where all is
    ASCII, one byte a character.
    """
    if all(map(str.isascii, texts)):
        joined = "\n".join([*texts, ""]).encode().translate(_ascii())
        codes: NDArray[Any] = np.frombuffer(joined, np.uint8)
        return codes & np.uint8(0x7F), codes > np.uint8(0x7F), _ends(texts, 1)
    composed = [text if text.isascii() else unicodedata.normalize("NFC", text) for text in texts]
    codes, ends = _stream(composed, _worded(), "\n")
    codes, ends = _without(codes, ends, np.flatnonzero(codes == IGNORED))
    return codes & np.uint32(ALONE - 1), codes >= np.uint32(ALONE), ends


def _stream(texts: Sequence[str], table: Codes, after: str) -> tuple[Codes, NDArray[np.int64]]:
    codes, ends = _looked_up(texts, table, after)
    return (
        _looked_up([text.casefold() for text in texts], table, after)
        if (codes == WIDENED).any()
        else (codes, ends)
    )


def _looked_up(texts: Sequence[str], table: Codes, after: str) -> tuple[Codes, NDArray[np.int64]]:
    points = np.frombuffer(after.join([*texts, ""]).encode("utf-32-le", "surrogatepass"), np.uint32)
    return table.take(points), _ends(texts, len(after))


def _ends(texts: Sequence[str], after: int) -> NDArray[np.int64]:
    return np.cumsum([len(text) + after for text in texts], dtype=np.int64)


def _without(
    codes: NDArray[Any], ends: NDArray[np.int64], dropped: NDArray[np.intp]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    return (
        (np.delete(codes, dropped), ends - np.searchsorted(dropped, ends))
        if len(dropped)
        else (codes, ends)
    )


@cache
def _folded() -> Codes:
    """Of each code point its case folding, or SPACE."""

    def fold(character: str) -> int:
        folded = character.casefold()
        if character.isspace():
            return SPACE
        return ord(folded) if len(folded) == 1 else WIDENED

    return _table(fold)


@cache
def _worded() -> Codes:
    """Of each code point its case folding, marked ALONE where it is; or SEPARATOR, or IGNORED."""
    folded = _folded()

    def place(character: str) -> int:
        category = unicodedata.category(character)
        if (
            category == "Cf"
            or "\ufe00" <= character <= "\ufe0f"
            or "\U000e0100" <= character <= "\U000e01ef"
        ):
            return IGNORED
        if category[0] in "ZPC":
            return SEPARATOR
        return int(folded[ord(character)]) | (ALONE if category[0] == "S" else 0)

    table = _table(place)
    for first, end in UNSPACED:
        inside = table[first:end]
        inside[(inside != SEPARATOR) & (inside < ALONE)] |= ALONE
    return table


@cache
def _ascii_folded() -> bytes:
    return bytes(_folded()[:0x80].tolist()) + bytes(0x80)


@cache
def _ascii() -> bytes:
    """`_worded` of one byte, ALONE as its highest bit."""
    table = _worded()[:0x80]
    return bytes((table | (table >> np.uint32(24))).astype(np.uint8).tolist()) + bytes(0x80)


def _table(of: Callable[[str], int]) -> Codes:
    table = np.arange(POINTS, dtype=np.uint32)
    for first, end in SPEAKING:
        table[first:end] = [of(chr(point)) for point in range(first, end)]
    return table
