"""The top-k file: what goes in comes out, to the stated precision, and nothing else is accepted."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import topk
from pipeline.errors import PipelineError
from pipeline.records import Frame
from pipeline.topk import ZERO, Header, TopKFile

IDS16, IDS32 = np.dtype("<u2"), np.dtype("<u4")


def raw(rows: int, k: int, vocab: int, seed: int = 0) -> tuple[NDArray, NDArray, NDArray]:
    """(ids, logprobs, full): (T, 1 + k) as an engine gives them, and the whole distributions (T, V)."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (rows, vocab))
    full = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    sampled = random.integers(vocab, size=(rows, 1))
    ids = np.concatenate([sampled, np.argsort(-full, axis=1)[:, :k]], axis=1)
    return ids.astype(np.int32), np.take_along_axis(full, ids, axis=1).astype(np.float32), full


@pytest.mark.parametrize(("vocab", "dtype"), [(500, IDS16), (100_000, IDS32)])
def test_round_trip(vocab: int, dtype: np.dtype) -> None:
    """Ids exactly, log-probabilities to 1/4096 nat, mass to one."""
    ids, logprobs, full = raw(40, 12, vocab)
    out = topk.decode(topk.encode(ids, logprobs, 1.0, dtype), dtype)
    assert out.ids[:, 0].tolist() == ids[:, 0].tolist()
    used = out.logprobs != -np.inf
    rows = np.nonzero(used)[0]
    assert np.abs(out.logprobs[used] - full[rows, out.ids[used]]).max() <= 1 / 4096 + 1e-5
    total = np.where(used, np.exp(out.logprobs.astype(np.float64)), 0).sum(1) + np.exp(out.tail.astype(np.float64))
    assert np.abs(total - 1).max() < 3e-4


def test_sampled_token_is_kept_and_kept_once() -> None:
    """It may be among the top k, or far below them; it is needed either way."""
    ids, logprobs, _ = raw(60, 12, 40)
    out = topk.decode(topk.encode(ids, logprobs, 0.5, IDS16), IDS16)
    for row in range(60):
        kept = out.ids[row][out.logprobs[row] != -np.inf].tolist()
        assert kept[0] == ids[row, 0]
        assert len(set(kept)) == len(kept)


def test_only_as_many_as_reach_the_mass() -> None:
    """A confident token costs one entry, and what is left out is in the tail."""
    ids = np.array([[7, 7, 8, 9]], np.int32)
    logprobs = np.log(np.array([[0.96, 0.96, 0.03, 0.01]], np.float32))
    one = topk.decode(topk.encode(ids, logprobs, 0.95, IDS16), IDS16)
    two = topk.decode(topk.encode(ids, logprobs, 0.98, IDS16), IDS16)
    assert (one.ids.tolist(), two.ids.tolist()) == ([[7]], [[7, 8]])
    assert np.exp(one.tail[0]) == pytest.approx(0.04, rel=0.01)
    assert np.exp(two.tail[0]) == pytest.approx(0.01, rel=0.03)


def test_junk_of_probability_zero_is_dropped() -> None:
    """Engines fill up with -inf entries that name arbitrary ids."""
    ids = np.array([[3, 3, 11, 12]], np.int32)
    logprobs = np.array([[-0.5, -0.5, -np.inf, -np.inf]], np.float32)
    out = topk.decode(topk.encode(ids, logprobs, 1.0, IDS16), IDS16)
    assert out.ids.tolist() == [[3]]
    assert topk.decode(topk.encode(ids, np.zeros((1, 4), np.float32), 1.0, IDS16), IDS16).tail[0] == -np.inf
    assert ZERO == 65535


def header(**changes: object) -> Header:
    fields = {"teacher": "t", "revision": None, "tokenizer": "h", "chat_template": None, "vocab_size": 500, "k": 4, "mass": 1.0}
    return Header.model_validate({**fields, "logprobs_mode": "raw_logprobs", "head_dtype": "float32", "engine": "fake 1", **changes})


def write(path: Path) -> Frame:
    ids, logprobs, _ = raw(5, 4, 500)
    data = topk.encode(ids, logprobs, 1.0, header().id_dtype)
    path.write_bytes(header().to_bytes() + data)
    return Frame(file=path.name, offset=len(header().to_bytes()), nbytes=len(data), crc32=zlib.crc32(data))


def test_file_gives_its_header_and_any_frame(tmp_path: Path) -> None:
    """The header is what makes the numbers meaningful."""
    place = write(tmp_path / "00000.topk")
    file = TopKFile(tmp_path / "00000.topk")
    assert file.header == header()
    assert file.frame(place).ids.shape[0] == 5


def test_flipped_bit_and_foreign_file_are_refused(tmp_path: Path) -> None:
    """Training on damaged numbers would go unnoticed."""
    path = tmp_path / "00000.topk"
    place = write(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(PipelineError, match="fails its checksum"):
        TopKFile(path).frame(place)
    path.write_bytes(b"something else altogether")
    with pytest.raises(PipelineError, match=r"not a \.topk file"):
        TopKFile(path)
    path.write_bytes(b"")
    with pytest.raises(PipelineError, match="cannot be read"):
        TopKFile(path)


def test_ids_take_two_bytes_where_they_can() -> None:
    """Half the storage for most vocabularies, and no overflow for the others."""
    assert header(vocab_size=65536).id_dtype.itemsize == 2
    assert header(vocab_size=65537).id_dtype.itemsize == 4
