"""The top-k file: what the teacher thought of every token it wrote, a few bytes each.

A `.topk` file is a header and then frames, one a completion; a JSONL line points to its frame. All numbers are little-endian.

    header  "TOPK" u16 version u32 nbytes, then that many bytes of JSON (Header)
    frame   u32 T, u8 count[T], u16 tail[T], id[sum(count)], u16 logprob[sum(count)]

A token's entries are the sampled token first, then the likeliest others in falling order, only as many as reach the configured
mass. Ids take 2 bytes where the vocabulary allows it, else 4. A log-probability is stored as round(-logprob * 2048), so it is exact
to 1/4096 nat down to -31.99; 65535 stands for minus infinity. `tail` is the log of the probability that the entries do not cover.

Dimension names: T tokens of a completion, K entries of a token (the widest in a frame), V vocabulary.
"""

import mmap
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from pipeline.errors import PipelineError
from pipeline.records import Frame

VERSION = 1
STEPS_PER_NAT = 2048
ZERO = 65535  # probability 0
MAGIC = struct.Struct("<4sHI")


class Header(BaseModel):
    """What makes the numbers of a file meaningful; training refuses what does not fit its student."""

    teacher: str
    revision: str | None
    tokenizer: str  # hash of the token-to-id map
    chat_template: str | None  # hash
    vocab_size: int
    k: int
    mass: float
    logprobs_mode: str
    head_dtype: str
    engine: str

    def to_bytes(self) -> bytes:
        body = self.model_dump_json().encode()
        return MAGIC.pack(b"TOPK", VERSION, len(body)) + body

    @property
    def id_dtype(self) -> np.dtype:
        return np.dtype("<u2" if self.vocab_size <= 65536 else "<u4")


@dataclass(frozen=True)
class TopK:
    """One completion's distributions. Column 0 is the sampled token; unused entries have logprob -inf."""

    ids: NDArray[np.int64]  # (T, K)
    logprobs: NDArray[np.float32]  # (T, K) nats
    tail: NDArray[np.float32]  # (T,) log of the mass outside the entries


def encode(ids: NDArray, logprobs: NDArray, mass: float, id_dtype: np.dtype) -> bytes:
    """Pack one completion.

    `ids` and `logprobs` are (T, 1 + k): the sampled token, then the top k in falling order, which may hold it again.
    """
    rows, width = ids.shape
    again = (ids == ids[:, :1]) & (np.arange(width) > 0)
    probability = np.where(again, 0.0, np.exp(logprobs.astype(np.float64)))
    before = np.cumsum(probability, axis=1) - probability  # (T, 1 + k), mass of the entries further left
    keep = ((before < mass) & (probability > 0) & ~again) | (np.arange(width) == 0)
    quantised = np.clip(np.round(-logprobs.astype(np.float64) * STEPS_PER_NAT), 0, ZERO - 1)
    quantised = np.where(np.isneginf(logprobs), ZERO, quantised).astype("<u2")
    covered = np.where(keep, np.exp(-quantised.astype(np.float64) / STEPS_PER_NAT), 0.0).sum(axis=1)
    with np.errstate(divide="ignore"):
        tail = -np.log(np.clip(1.0 - covered, 0.0, 1.0)) * STEPS_PER_NAT
    tail = np.where(tail < ZERO - 0.5, np.round(tail), ZERO).astype("<u2")
    counts = keep.sum(axis=1).astype("u1")
    return b"".join(
        (
            struct.pack("<I", rows),
            counts.tobytes(),
            tail.tobytes(),
            ids[keep].astype(id_dtype).tobytes(),
            quantised[keep].tobytes(),
        )
    )


def decode(data: bytes | memoryview, id_dtype: np.dtype) -> TopK:
    """Unpack one frame."""
    (rows,) = struct.unpack_from("<I", data)
    counts = np.frombuffer(data, "u1", rows, 4).astype(np.int64)
    tail = np.frombuffer(data, "<u2", rows, 4 + rows)
    total = int(counts.sum())
    start = 4 + 3 * rows
    flat_ids = np.frombuffer(data, id_dtype, total, start)
    flat_logprobs = np.frombuffer(data, "<u2", total, start + total * id_dtype.itemsize)
    width = int(counts.max(initial=1))
    filled = np.arange(width) < counts[:, None]
    ids = np.zeros((rows, width), np.int64)
    ids[filled] = flat_ids
    logprobs = np.full((rows, width), -np.inf, np.float32)
    logprobs[filled] = _nats(flat_logprobs)
    return TopK(ids, logprobs, _nats(tail))


def _nats(quantised: NDArray) -> NDArray[np.float32]:
    return np.where(quantised == ZERO, -np.inf, quantised / np.float32(-STEPS_PER_NAT)).astype(np.float32)


class TopKFile:
    """Reads any frame of one file in O(1); the file is mapped, never loaded."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise PipelineError(f"{path}: cannot be read ({error}); make its stage again with --redo") from None
        self.header = self._read_header()

    def frame(self, place: Frame) -> TopK:
        """The distributions at `place`. Raises PipelineError if the bytes there are not those that were written."""
        data = self._map[place.offset : place.offset + place.nbytes]
        if zlib.crc32(data) != place.crc32:
            raise PipelineError(f"{self.path}: the frame at {place.offset} fails its checksum; make its stage again with --redo")
        return decode(data, self.header.id_dtype)

    def _read_header(self) -> Header:
        try:
            magic, version, nbytes = MAGIC.unpack_from(self._map)
            if magic != b"TOPK" or version != VERSION:
                raise PipelineError(f"{self.path}: not a .topk file of version {VERSION}")
            return Header.model_validate_json(self._map[MAGIC.size : MAGIC.size + nbytes])
        except (struct.error, ValidationError):
            raise PipelineError(f"{self.path}: its header is damaged; make its stage again with --redo") from None


class TopKFolder:
    """The `.topk` files of one stage folder, opened as frames ask for them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._files: dict[str, TopKFile] = {}

    def file(self, name: str) -> TopKFile:
        if name not in self._files:
            self._files[name] = TopKFile(self.folder / name)
        return self._files[name]

    def frame(self, place: Frame) -> TopK:
        return self.file(place.file).frame(place)
