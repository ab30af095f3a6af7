"""The .topk file: token probabilities in a few bytes each; see docs/reference/topk.md.

Every token at least as likely as a threshold is kept exactly. Of the rarer ones among the engine's
top k, a few random draws are kept, each for an equal share of their joint mass, so that sums over
the vocabulary stay unbiased (systematic threshold sampling; Duffield, Lund & Thorup 2007). The mass
beyond the top k is the tail.

Dimension names: T tokens of a completion, K entries of a token (the most in a frame), V vocabulary.
"""

import mmap
import struct
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from pipeline.errors import PipelineError
from pipeline.records import Frame, Sample

VERSION = 2
MAGIC = struct.Struct("<4sHII")  # "TOPK", version, length and CRC-32 of the JSON that follows
U1 = np.dtype("u1")
ZERO = 255  # the code of probability 0
DEEPEST = 25.0  # nats; rarer tokens are stored as this rare
MAX_HEADER = 1 << 16
OPEN_FILES = 128  # of a folder at once
ESCAPE = 15  # a count of this or more is stored in full behind the counts
# logprob by code, finest near probability 1
NATS = np.append(-DEEPEST * (np.arange(ZERO) / (ZERO - 1)) ** 2, -np.inf)


class Header(BaseModel):
    """What the numbers of a file mean; training refuses a file that does not fit its student."""

    stage: str  # generate and evaluate: logprobs from sampling; score: from prefill
    teacher: str
    revision: str | None
    tokenizer: str  # hash of the token-to-id map
    chat_template: str | None  # hash
    vocab_size: int
    k: int
    mass: float
    threshold: float
    logprobs_mode: str
    head_dtype: str
    engine: str  # name and version; several, joined by ", ", if the shard was resumed with another

    def to_bytes(self) -> bytes:
        """Return the header as it begins a file."""
        body = self.model_dump_json().encode()
        return MAGIC.pack(b"TOPK", VERSION, len(body), zlib.crc32(body)) + body

    @property
    def engines(self) -> list[str]:
        """The engines that made the frames."""
        return self.engine.split(", ")

    def with_engines(self, engines: Sequence[str]) -> "Header":
        """Return the header of a file to which these engines contributed, too."""
        names = dict.fromkeys([*self.engines, *engines])
        return self.model_copy(update={"engine": ", ".join(names)})

    @property
    def id_dtype(self) -> np.dtype:
        """The integer type of token ids in the file."""
        return np.dtype("<u2" if self.vocab_size <= 65536 else "<u4")


def read_header(begin: bytes) -> Header | None:
    """Return the header in a file's first bytes; None if it is damaged or of another version."""
    try:
        magic, version, nbytes, crc32 = MAGIC.unpack_from(begin)
        body = begin[MAGIC.size : MAGIC.size + nbytes]
        if magic != b"TOPK" or version != VERSION or zlib.crc32(body) != crc32:
            return None
        return Header.model_validate_json(body)
    except (struct.error, ValidationError):
        return None


@dataclass(frozen=True)
class TopK:
    """The token distributions of one completion.

    Column 0 is the sampled token; unused entries have logprob -inf. The logprob of a drawn entry
    is the log of the mass that it stands for, not of its own probability.
    """

    ids: NDArray[np.int64]  # (T, K)
    logprobs: NDArray[np.float32]  # (T, K) nats
    tail: NDArray[np.float32]  # (T,) log of the mass outside the entries
    exact: NDArray[np.int64]  # (T,) number of exact entries, from the left; the others are draws


def encode(ids: NDArray, logprobs: NDArray, header: Header, key: int) -> bytes:
    """Pack the distributions of one completion into a frame.

    Args:
        ids, logprobs: (T, 1 + k): the sampled token, then the top k in falling order, which may
            include it again.
        key: random seed of the draws; the same key gives the same bytes.
    """
    rows, width = ids.shape
    first = np.arange(width) == 0
    live = (logprobs != -np.inf) & (first | (ids != ids[:, :1]))
    probability = np.where(live, np.exp(logprobs, dtype=np.float64), 0.0)
    before = np.cumsum(probability, axis=1) - probability  # mass of the entries further left
    exact = first | (live & (probability >= header.threshold) & (before < header.mass))
    covered = np.where(exact, probability, 0.0).sum(axis=1)  # (T,)
    undrawn = exact | (covered >= header.mass)[:, None] | (header.threshold == 0)
    rarer = np.where(undrawn, 0.0, probability)
    offsets = np.random.default_rng(key).random((rows,))
    draws = _draw(rarer, header.threshold, offsets) if rarer.any() else np.zeros_like(exact)
    drawn = draws.sum(axis=1)
    tail = _codes(_log(1.0 - covered - rarer.sum(axis=1)))
    return b"".join(
        (
            _pack_counts(np.stack([exact.sum(axis=1), drawn])),
            tail[drawn > 0].tobytes(),
            _codes(logprobs[exact]).tobytes(),
            ids[exact & ~first].astype(header.id_dtype).tobytes(),
            ids[draws].astype(header.id_dtype).tobytes(),
        )
    )


def tail_mass(ids: NDArray, logprobs: NDArray) -> NDArray[np.float64]:
    """Return the mass (T,) outside the entries (T, 1 + k), which are as `encode` takes them."""
    live = (np.arange(ids.shape[1]) == 0) | (ids != ids[:, :1])
    covered = np.where(live, np.exp(logprobs, dtype=np.float64), 0.0).sum(axis=1)
    return np.maximum(1.0 - covered, 0.0)


def with_tail(topk: TopK, mass: NDArray[np.float64]) -> TopK:
    """Return distributions of exact entries alone, with tails of this `mass` (T,).

    A frame's own tail is what its rounded entries leave, which is off by up to some thousandths.
    """
    probability = np.exp(topk.logprobs, dtype=np.float64)
    probability *= ((1.0 - mass) / probability.sum(axis=1))[:, None]
    return TopK(
        topk.ids, _log(probability).astype(np.float32), _log(mass).astype(np.float32), topk.exact
    )


def checksum(frame: bytes | memoryview, token_ids: Sequence[int]) -> int:
    """Return the CRC-32 of a frame and of its token ids, so that it fits no other tokens."""
    return zlib.crc32(np.array(token_ids, "<u4").tobytes(), zlib.crc32(frame))


def decode(data: bytes | memoryview, token_ids: Sequence[int], id_dtype: np.dtype) -> TopK:
    """Unpack the frame of a completion with these `token_ids` (T,)."""
    (exact, drawn), at = _unpack_counts(data)
    sampled = drawn > 0
    layout = (
        (sampled.sum(), U1),
        (exact.sum(), U1),
        ((exact - 1).sum(), id_dtype),
        (drawn.sum(), id_dtype),
    )
    parts = []
    for number, dtype in layout:
        parts.append(np.frombuffer(data, dtype, int(number), at))
        at += parts[-1].nbytes
    tail_codes, codes, exact_ids, drawn_ids = parts
    column = np.arange(int((exact + drawn).max(initial=1)))
    is_exact = column < exact[:, None]
    is_drawn = ~is_exact & (column < (exact + drawn)[:, None])
    ids = np.zeros(is_exact.shape, np.int64)
    ids[:, 0] = token_ids
    ids[is_exact & (column > 0)] = exact_ids
    ids[is_drawn] = drawn_ids
    probability = np.zeros(is_exact.shape)
    probability[is_exact] = np.exp(NATS[codes])
    covered = np.maximum(probability.sum(axis=1), 1e-300)  # rounding may carry it a little above 1
    tail = np.clip(1.0 - covered, 0.0, 1.0)
    tail[sampled] = np.minimum(np.exp(NATS[tail_codes]), tail[sampled])
    probability /= np.maximum(covered, 1.0)[:, None]
    share = np.clip(1.0 - covered - tail, 0.0, 1.0) / np.maximum(drawn, 1)
    probability[is_drawn] = np.broadcast_to(share[:, None], is_drawn.shape)[is_drawn]
    return TopK(ids, _log(probability).astype(np.float32), _log(tail).astype(np.float32), exact)


def _draw(rarer: NDArray, threshold: float, offsets: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the draws (T, 1 + k): one for each `threshold` of the mass of `rarer` (T, 1 + k).

    Systematic sampling: an entry's probability is proportional to its mass. The points offset + 0,
    1, 2, … on the cumulative mass, in steps of R / draws, hit an entry at most once, since none is
    as likely as a step.
    """
    mass = rarer.sum(axis=1)  # (T,) R
    wanted = np.where(mass > 0, np.maximum(np.floor(mass / threshold), 1), 0)
    position = np.cumsum(rarer, axis=1) * (wanted / np.where(mass > 0, mass, 1.0))[:, None]
    passed = np.minimum(np.floor(position - offsets[:, None] + 1.0), wanted[:, None])
    return np.diff(passed, axis=1, prepend=0.0) > 0


def _codes(logprobs: NDArray) -> NDArray[np.uint8]:
    """Return the nearest codes: 254 * sqrt(nats / 25)."""
    nearest = np.rint((ZERO - 1) * np.sqrt(np.clip(-logprobs, 0.0, DEEPEST) / DEEPEST))
    return np.where(np.isneginf(logprobs), ZERO, nearest).astype(U1)


def _log(probability: NDArray) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.log(np.clip(probability, 0.0, 1.0))


def _pack_counts(counts: NDArray) -> bytes:
    """Pack the counts (2, T) of exact entries and draws.

    T as a LEB128 number, T bytes (exact | drawn << 4), then as u16 the counts that do not fit into
    four bits, token by token.
    """
    rows = counts.shape[1]
    length = bytearray()
    while rows >= 128:
        length.append(rows & 127 | 128)
        rows >>= 7
    length.append(rows)
    nibbles = np.minimum(counts, ESCAPE).astype(U1)
    escaped = counts.T[counts.T >= ESCAPE].astype("<u2")
    return bytes(length) + (nibbles[0] | nibbles[1] << 4).tobytes() + escaped.tobytes()


def _unpack_counts(data: bytes | memoryview) -> tuple[NDArray[np.int64], int]:
    """Return ((2, T) exact and drawn, offset of the rest of the frame)."""
    rows = shift = at = 0
    while True:
        byte = data[at]
        rows |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if byte < 128:
            break
    packed = np.frombuffer(data, U1, rows, at).astype(np.int64)
    at += rows
    counts = np.stack([packed & 15, packed >> 4], axis=1)  # (T, 2)
    large = counts == ESCAPE
    number = int(large.sum())
    counts[large] = np.frombuffer(data, "<u2", number, at)
    return counts.T, at + 2 * number


class TopKFile:
    """One .topk file, mapped, not loaded: any frame can be read in O(1)."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise PipelineError(
                f"{path}: cannot be read ({error}); regenerate its stage with --redo"
            ) from None
        self.header = self._read_header()

    def frame(self, place: Frame, token_ids: Sequence[int]) -> TopK:
        """Return the distributions at `place`.

        Raises PipelineError if the bytes there are not those written for these tokens.
        """
        data = self._map[place.offset : place.offset + place.nbytes]
        if checksum(data, token_ids) != place.crc32:
            raise PipelineError(
                f"{self.path}: the frame at {place.offset} fails its checksum: it is damaged, or "
                "not that of these tokens; pipeline verify RUN lists all damage, and --repair "
                "regenerates just that part"
            )
        return decode(data, token_ids, self.header.id_dtype)

    def _read_header(self) -> Header:
        header = read_header(self._map[: MAGIC.size + MAX_HEADER])
        if header is None:
            raise PipelineError(
                f"{self.path}: not a .topk file of version {VERSION}, or its header is damaged; "
                "regenerate its stage with --redo"
            )
        return header


class TopKFolder:
    """The .topk files of one stage folder, opened when first needed.

    Each open file holds a file descriptor, of which a process often has 1,024 at most. So the one
    that was not used for the longest time is closed.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._files: OrderedDict[str, TopKFile] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return TopKFolder, (self.folder,)

    def file(self, name: str) -> TopKFile:
        """Return one file of the folder, open."""
        if name not in self._files:
            if len(self._files) >= OPEN_FILES:
                self._files.popitem(last=False)
            self._files[name] = TopKFile(self.folder / name)
        self._files.move_to_end(name)
        return self._files[name]

    def frame(self, place: Frame, token_ids: Sequence[int]) -> TopK:
        """Return the distributions at `place`; see TopKFile.frame."""
        return self.file(place.file).frame(place, token_ids)

    def topk_of(self, sample: Sample) -> TopK:
        """Return the distributions of a sample. Raises PipelineError if it has none."""
        if sample.frame is None or sample.token_ids is None:
            raise PipelineError(
                f"{self.folder}: sample {sample.id} has no logprobs; "
                "generate with teacher.logprobs, or run pipeline score"
            )
        return self.frame(sample.frame, sample.token_ids)
