"""The top-k file: what the teacher thought of every token it wrote, a few bytes each. docs/reference/topk.md is its specification.

Which entries are kept: every token at least as likely as a threshold, exactly; of the rarer ones among the engine's top k a few random
draws, each standing for an equal share of their joint mass, so that sums over the vocabulary stay unbiased (systematic threshold
sampling; Duffield, Lund & Thorup 2007). What lies beyond the top k is the tail.

Dimension names: T tokens of a completion, K entries of a token (the widest in a frame), V vocabulary.
"""

import mmap
import struct
import zlib
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
DEEPEST = 25.0  # nats; what is rarer is stored as this rare
MAX_HEADER = 1 << 16
ESCAPE = 15  # a count of this or more stands in full behind the counts
NATS = np.append(
    -DEEPEST * (np.arange(ZERO) / (ZERO - 1)) ** 2, -np.inf
)  # by code; finest near probability 1


class Header(BaseModel):
    """What makes the numbers of a file meaningful; training refuses what does not fit its student."""

    stage: str  # generate, evaluate: while the tokens were made; score: by prefill
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
    engine: str  # and its version; ", " between several, where a shard was begun with one and gone on with by another

    def to_bytes(self) -> bytes:
        body = self.model_dump_json().encode()
        return MAGIC.pack(b"TOPK", VERSION, len(body), zlib.crc32(body)) + body

    @property
    def engines(self) -> list[str]:
        return self.engine.split(", ")

    def also_by(self, engines: Sequence[str]) -> "Header":
        """The header of a file in which these had a part, too."""
        return self.model_copy(
            update={"engine": ", ".join(dict.fromkeys([*self.engines, *engines]))}
        )

    @property
    def id_dtype(self) -> np.dtype:
        return np.dtype("<u2" if self.vocab_size <= 65536 else "<u4")


def read_header(begin: bytes) -> Header | None:
    """The header of a file that begins so; None if it is damaged, or of another version."""
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
    """One completion's distributions. Column 0 is the sampled token; unused entries have logprob -inf.

    A drawn entry's `logprobs` is the log of the mass that it stands for, not of its own probability.
    """

    ids: NDArray[np.int64]  # (T, K)
    logprobs: NDArray[np.float32]  # (T, K) nats
    tail: NDArray[np.float32]  # (T,) log of the mass outside the entries
    exact: NDArray[
        np.int64
    ]  # (T,) how many of the entries, from the left, are exact; the others are draws


def encode(ids: NDArray, logprobs: NDArray, header: Header, key: int) -> bytes:
    """Pack one completion.

    Args:
        ids, logprobs: (T, 1 + k): the sampled token, then the top k in falling order, which may hold it again.
        key: decides the draws; the same key gives the same bytes.
    """
    rows, width = ids.shape
    first = np.arange(width) == 0
    live = (logprobs != -np.inf) & (first | (ids != ids[:, :1]))
    probability = np.where(live, np.exp(logprobs, dtype=np.float64), 0.0)
    before = np.cumsum(probability, axis=1) - probability  # mass of the entries further left
    exact = first | (live & (probability >= header.threshold) & (before < header.mass))
    covered = np.where(exact, probability, 0.0).sum(axis=1)  # (T,)
    rarer = np.where(
        exact | (covered >= header.mass)[:, None] | (header.threshold == 0), 0.0, probability
    )
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
    """(T,): the mass outside the entries of (T, 1 + k) as `encode` takes them."""
    live = (np.arange(ids.shape[1]) == 0) | (ids != ids[:, :1])
    return np.maximum(
        1.0 - np.where(live, np.exp(logprobs, dtype=np.float64), 0.0).sum(axis=1), 0.0
    )


def with_tail(topk: TopK, mass: NDArray[np.float64]) -> TopK:
    """Distributions of exact entries alone, whose tails have this `mass` (T,). A frame's own tail is what its rounded entries leave, up to
    some thousandths that were not there."""
    probability = np.exp(topk.logprobs, dtype=np.float64)
    probability *= ((1.0 - mass) / probability.sum(axis=1))[:, None]
    return TopK(
        topk.ids, _log(probability).astype(np.float32), _log(mass).astype(np.float32), topk.exact
    )


def checksum(frame: bytes | memoryview, token_ids: Sequence[int]) -> int:
    """CRC-32 of a frame and of the tokens that it is about, so that it holds for no others."""
    return zlib.crc32(np.array(token_ids, "<u4").tobytes(), zlib.crc32(frame))


def decode(data: bytes | memoryview, token_ids: Sequence[int], id_dtype: np.dtype) -> TopK:
    """Unpack one frame, which is about `token_ids` (T,)."""
    (exact, drawn), at = _unpack_counts(data)
    sampled, others = drawn > 0, exact - 1
    parts = []
    for number, dtype in (
        (sampled.sum(), U1),
        (exact.sum(), U1),
        (others.sum(), id_dtype),
        (drawn.sum(), id_dtype),
    ):
        parts.append(np.frombuffer(data, dtype, int(number), at))
        at += parts[-1].nbytes
    tail_codes, codes, exact_ids, drawn_ids = parts
    column = np.arange(int((exact + drawn).max(initial=1)))
    is_exact = column < exact[:, None]
    is_drawn = ~is_exact & (column < (exact + drawn)[:, None])
    ids = np.zeros(is_exact.shape, np.int64)
    ids[:, 0] = token_ids
    ids[is_exact & (column > 0)], ids[is_drawn] = exact_ids, drawn_ids
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
    """(T, 1 + k) bool: systematic sampling with probability proportional to `rarer`, one draw for each `threshold` of their mass.

    The points offset + 0, 1, 2, … on the cumulative mass, measured in steps of R / draws, hit an entry at most once, since none is
    as likely as a step.
    """
    mass = rarer.sum(axis=1)  # (T,) R
    wanted = np.where(mass > 0, np.maximum(np.floor(mass / threshold), 1), 0)
    position = np.cumsum(rarer, axis=1) * (wanted / np.where(mass > 0, mass, 1.0))[:, None]
    passed = np.minimum(np.floor(position - offsets[:, None] + 1.0), wanted[:, None])
    return np.diff(passed, axis=1, prepend=0.0) > 0


def _codes(logprobs: NDArray) -> NDArray[np.uint8]:
    """The nearest codes: 254 * sqrt(nats / 25)."""
    nearest = np.rint((ZERO - 1) * np.sqrt(np.clip(-logprobs, 0.0, DEEPEST) / DEEPEST))
    return np.where(np.isneginf(logprobs), ZERO, nearest).astype(U1)


def _log(probability: NDArray) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.log(np.clip(probability, 0.0, 1.0))


def _pack_counts(counts: NDArray) -> bytes:
    """T as a LEB128 number, T bytes (exact | drawn << 4), then in u16 those counts that do not fit into four bits, token by token."""
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
    """((2, T) exact and drawn, where the rest of the frame begins)."""
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
    """Reads any frame of one file in O(1); the file is mapped, never loaded."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise PipelineError(
                f"{path}: cannot be read ({error}); make its stage again with --redo"
            ) from None
        self.header = self._read_header()

    def frame(self, place: Frame, token_ids: Sequence[int]) -> TopK:
        """The distributions at `place`. Raises PipelineError if the bytes there are not those that were written for these tokens."""
        data = self._map[place.offset : place.offset + place.nbytes]
        if checksum(data, token_ids) != place.crc32:
            raise PipelineError(
                f"{self.path}: the frame at {place.offset} fails its checksum: it is damaged, or not that of these tokens; "
                "pipeline verify RUN says what is, and --repair has just that part made again"
            )
        return decode(data, token_ids, self.header.id_dtype)

    def _read_header(self) -> Header:
        found = read_header(self._map[: MAGIC.size + MAX_HEADER])
        if found is None:
            raise PipelineError(
                f"{self.path}: not a .topk file of version {VERSION}, or its header is damaged; make its stage again with --redo"
            )
        return found


class TopKFolder:
    """The `.topk` files of one stage folder, opened as frames ask for them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._files: dict[str, TopKFile] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return TopKFolder, (self.folder,)

    def file(self, name: str) -> TopKFile:
        if name not in self._files:
            self._files[name] = TopKFile(self.folder / name)
        return self._files[name]

    def frame(self, place: Frame, token_ids: Sequence[int]) -> TopK:
        return self.file(place.file).frame(place, token_ids)

    def of(self, sample: Sample) -> TopK:
        """The distributions of a sample that has some."""
        if sample.frame is None or sample.token_ids is None:
            raise PipelineError(
                f"{self.folder}: sample {sample.id} has no logprobs; generate with teacher.logprobs, or pipeline score"
            )
        return self.frame(sample.frame, sample.token_ids)
