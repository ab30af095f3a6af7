"""The .topk file: round trips to the stated precision; damaged files are refused."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.records import Frame
from pipeline.storage import topk
from pipeline.storage.topk import OPEN_FILES, TopK, TopKFile, TopKFolder
from tests.support.topk import header

TOKENS = [288, 161, 127, 296, 312]  # what raw(5, 4, 500) samples


def raw(rows: int, k: int, vocab: int, seed: int = 0) -> tuple[NDArray, NDArray, NDArray]:
    """Return (ids, logprobs, full): (T, 1 + k) as an engine gives them, and all (T, V)."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (rows, vocab))
    full = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    sampled = random.integers(vocab, size=(rows, 1))
    ids = np.concatenate([sampled, np.argsort(-full, axis=1)[:, :k]], axis=1)
    return ids.astype(np.int32), np.take_along_axis(full, ids, axis=1).astype(np.float32), full


def round_trip(ids: NDArray, logprobs: NDArray, key: int = 0, **changes: object) -> TopK:
    head = header(**changes)
    return topk.decode(topk.encode(ids, logprobs, head, key), ids[:, 0].tolist(), head.id_dtype)


@pytest.mark.parametrize("vocab", [500, 100_000])
@pytest.mark.parametrize("threshold", [0.0, 0.0625])
def test_round_trip(vocab: int, threshold: float) -> None:
    """Ids are exact, logprobs of exact entries have the stated precision, mass is one."""
    ids, logprobs, full = raw(40, 12, vocab)
    out = round_trip(ids, logprobs, vocab_size=vocab, threshold=threshold)
    assert out.ids[:, 0].tolist() == ids[:, 0].tolist()
    exact = np.arange(out.ids.shape[1]) < out.exact[:, None]
    rows = np.nonzero(exact)[0]
    true = full[rows, out.ids[exact]]
    step = (
        2 * np.sqrt(topk.DEEPEST * -true) / (topk.ZERO - 1)
    )  # the derivative of 25 (code / 254)^2
    assert (
        np.abs(out.logprobs[exact] - true) <= step / 2 + topk.DEEPEST / (topk.ZERO - 1) ** 2
    ).all()
    total = np.exp(out.logprobs.astype(np.float64)).sum(1) + np.exp(out.tail.astype(np.float64))
    assert np.abs(total - 1).max() < 1e-5


def test_draws_are_unbiased() -> None:
    """Over many keys a rare token gets its probability on average; truncation gives it none."""
    ids, logprobs, full = raw(8, 30, 200)
    mean = np.zeros((8, 200))
    for key in range(2000):
        out = round_trip(ids, logprobs, key, threshold=0.125)
        np.add.at(mean, (np.arange(8)[:, None], out.ids), np.exp(out.logprobs) / 2000)
    there = np.zeros((8, 200), bool)
    np.put_along_axis(there, ids.astype(np.int64), True, axis=1)
    assert np.abs(mean - np.where(there, np.exp(full), 0)).max() < 0.02
    rare = there & (np.exp(full) < 0.02) & (np.exp(full) > 0.005)
    assert mean[rare].sum() == pytest.approx(np.exp(full)[rare].sum(), rel=0.1)


def test_draws_follow_from_their_key() -> None:
    """A regenerated run, or one by other workers, must give the same bytes."""
    ids, logprobs, _ = raw(20, 30, 200)
    head = header(threshold=0.125)
    assert topk.encode(ids, logprobs, head, 7) == topk.encode(ids, logprobs, head, 7)
    assert topk.encode(ids, logprobs, head, 7) != topk.encode(ids, logprobs, head, 8)


def test_many_entries_of_a_long_completion() -> None:
    """Counts of 15 and more, and lengths of 128 and more, take another form in the file."""
    ids, logprobs, _ = raw(300, 40, 500)
    out = round_trip(ids, logprobs)
    assert out.ids.shape[0] == 300
    assert out.exact.max() >= 40
    assert (np.sort(out.ids[0, : out.exact[0]]) == np.unique(ids[0])).all()


def test_sampled_token_is_kept_and_kept_once() -> None:
    """It may be among the top k, or far below them; it is needed either way."""
    ids, logprobs, _ = raw(60, 12, 40)
    out = round_trip(ids, logprobs, mass=0.5, threshold=0.1)
    for row in range(60):
        kept = out.ids[row][out.logprobs[row] != -np.inf].tolist()
        assert kept[0] == ids[row, 0]
        assert len(set(kept)) == len(kept)


def test_only_as_many_as_reach_the_mass() -> None:
    """A confident token costs one entry, and what is left out is in the tail."""
    ids = np.array([[7, 7, 8, 9]], np.int32)
    logprobs = np.log(np.array([[0.96, 0.96, 0.03, 0.01]], np.float32))
    one, two = round_trip(ids, logprobs, mass=0.95), round_trip(ids, logprobs, mass=0.98)
    assert (one.ids.tolist(), two.ids.tolist()) == ([[7]], [[7, 8]])
    assert np.exp(one.tail[0]) == pytest.approx(0.04, abs=0.003)
    assert np.exp(two.tail[0]) == pytest.approx(0.01, abs=0.003)


def test_what_lies_beyond_the_top_k_stays_in_the_tail() -> None:
    """Draws stand for the top k only; with the tail's mass they would be too likely."""
    ids = np.array([[7, 7, 8, 9]], np.int32)
    logprobs = np.log(np.array([[0.5, 0.5, 0.2, 0.1]], np.float32))
    out = round_trip(ids, logprobs, threshold=0.4)
    assert out.exact.tolist() == [1]
    assert np.exp(out.tail[0]) == pytest.approx(0.2, abs=0.01)
    assert np.exp(out.logprobs[0, 1:]).sum() == pytest.approx(0.3, abs=0.01)


def test_junk_of_probability_zero_is_dropped() -> None:
    """Engines fill up with -inf entries that name arbitrary ids."""
    ids = np.array([[3, 3, 11, 12]], np.int32)
    logprobs = np.array([[-0.5, -0.5, -np.inf, -np.inf]], np.float32)
    assert round_trip(ids, logprobs).ids.tolist() == [[3]]
    assert round_trip(ids, np.zeros((1, 4), np.float32)).tail[0] == -np.inf


def write(path: Path) -> Frame:
    ids, logprobs, _ = raw(5, 4, 500)
    assert ids[:, 0].tolist() == TOKENS
    data = topk.encode(ids, logprobs, header(), 0)
    path.write_bytes(header().to_bytes() + data)
    return Frame(
        file=path.name,
        offset=len(header().to_bytes()),
        nbytes=len(data),
        crc32=topk.checksum(data, TOKENS),
    )


def test_file_gives_its_header_and_any_frame(tmp_path: Path) -> None:
    """The header says what the numbers mean."""
    place = write(tmp_path / "00000.topk")
    file = TopKFile(tmp_path / "00000.topk")
    assert file.header == header()
    assert file.frame(place, TOKENS).ids[:, 0].tolist() == TOKENS
    for other in (TOKENS[::-1], TOKENS[:4], [*TOKENS, 1]):
        with pytest.raises(PipelineError, match="not that of these tokens"):
            file.frame(place, other)


def test_flipped_bit_and_foreign_file_are_refused(tmp_path: Path) -> None:
    """Training on damaged numbers would go unnoticed."""
    path = tmp_path / "00000.topk"
    place = write(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(PipelineError, match="fails its checksum"):
        TopKFile(path).frame(place, TOKENS)
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


def test_files_of_a_folder_do_not_use_up_the_descriptors(tmp_path: Path) -> None:
    """The 1,018th shard could not be read, and the advice was to make the stage again."""
    count = OPEN_FILES + 20
    for number in range(count):
        (tmp_path / f"{number:05}.topk").write_bytes(header(vocab_size=number).to_bytes())
    before = len(os.listdir("/proc/self/fd"))
    folder = TopKFolder(tmp_path)
    for number in [*range(count), 0]:
        assert folder.file(f"{number:05}.topk").header.vocab_size == number
    assert len(os.listdir("/proc/self/fd")) <= before + OPEN_FILES
