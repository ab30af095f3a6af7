"""Shards: what is committed survives, a torn tail is cut, damage is named, a sealed shard is left alone."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import store
from pipeline.errors import PipelineError
from pipeline.records import Sample
from pipeline.store import Shard, read_records

HEADER = b"HEAD" * 3
Make = Callable[..., Sample]


def shard_of(folder: Path, count: int = 4) -> Shard[Sample]:
    shard = Shard(folder, 0, [f"s{n}" for n in range(count)], Sample)
    shard.recover()
    if not shard.complete:
        shard.begin(HEADER)
    return shard


def frame(number: int) -> bytes:
    return struct.pack("<I", number) * (number + 1)


def frames_fit(folder: Path) -> bool:
    data = (folder / "00000.topk").read_bytes()
    return all(
        zlib.crc32(data[s.frame.offset : s.frame.offset + s.frame.nbytes]) == s.frame.crc32 for s in read_records(folder, Sample) if s.frame
    )


def test_sealed_shard_is_in_input_order_whatever_came_first(tmp_path: Path, sample: Make) -> None:
    """Completions come in any order; files must not depend on it."""
    shard = shard_of(tmp_path)
    for number in (2, 0, 3, 1):
        shard.append(sample(number), frame(number))
    shard.seal()
    assert [s.id for s in read_records(tmp_path, Sample)] == ["s0", "s1", "s2", "s3"]
    assert frames_fit(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["00000.jsonl", "00000.topk"]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_torn_line_is_cut_and_made_again(tmp_path: Path, sample: Make, cut: int) -> None:
    """A kill in the middle of a line must cost that line only."""
    shard = shard_of(tmp_path)
    for number in (0, 1):
        shard.append(sample(number), frame(number))
    shard.commit()
    shard.close()
    os.truncate(shard.lines_path, shard.lines_path.stat().st_size - cut)
    again = shard_of(tmp_path)
    assert again.done == {"s0"}
    for number in (1, 2, 3):
        again.append(sample(number), frame(number))
    again.seal()
    assert len(list(read_records(tmp_path, Sample))) == 4
    assert frames_fit(tmp_path)


def test_line_without_its_frame_does_not_count(tmp_path: Path, sample: Make) -> None:
    """The line is the commit, but only with the frame it points to."""
    shard = shard_of(tmp_path)
    for number in (0, 1):
        shard.append(sample(number), frame(number))
    shard.commit()
    shard.close()
    os.truncate(shard.frames_path, shard.frames_path.stat().st_size - 1)
    assert shard_of(tmp_path).done == {"s0"}


def test_frames_without_a_line_are_dropped(tmp_path: Path, sample: Make) -> None:
    """A kill between frame and line leaves bytes that no line owns; the next frame must not be placed behind them."""
    shard = shard_of(tmp_path)
    shard.append(sample(0), frame(0))
    shard.commit()
    shard.close()
    with shard.frames_path.open("ab") as file:
        file.write(b"left over")
    again = shard_of(tmp_path)
    for number in (1, 2, 3):
        again.append(sample(number), frame(number))
    again.seal()
    assert frames_fit(tmp_path)


def test_damage_in_the_middle_is_named(tmp_path: Path, sample: Make) -> None:
    """A flipped bit is no torn tail: good lines after it must not be thrown away in silence."""
    shard = shard_of(tmp_path)
    for number in (0, 1, 2):
        shard.append(sample(number), frame(number))
    shard.commit()
    shard.close()
    lines = shard.lines_path.read_bytes().splitlines(keepends=True)
    shard.lines_path.write_bytes(lines[0] + b"{broken\n" + lines[2])
    with pytest.raises(PipelineError, match=r"00000\.journal\.jsonl:2: .*this is damage"):
        shard_of(tmp_path)


def test_kill_before_the_last_rename_seals_again(tmp_path: Path, sample: Make) -> None:
    """A sealed .topk without its .jsonl is half a seal; the journal still has everything."""
    shard = shard_of(tmp_path)
    for number in range(4):
        shard.append(sample(number), frame(number))
    shard.commit()
    shard.close()
    (tmp_path / "00000.topk").write_bytes(b"half a seal")
    again = shard_of(tmp_path)
    assert again.complete
    again.seal()
    assert frames_fit(tmp_path)


def test_sealed_shard_is_never_touched(tmp_path: Path, sample: Make) -> None:
    """Recovery of a finished run must not rewrite it, and sweeps up a journal that a kill left behind."""
    shard = shard_of(tmp_path)
    for number in range(4):
        shard.append(sample(number), frame(number))
    shard.seal()
    before = [(tmp_path / name).stat().st_mtime_ns for name in ("00000.jsonl", "00000.topk")]
    shard.lines_path.write_bytes(b"left over")
    assert shard_of(tmp_path).complete
    assert [(tmp_path / name).stat().st_mtime_ns for name in ("00000.jsonl", "00000.topk")] == before
    assert not shard.lines_path.exists()


def test_other_header_is_refused(tmp_path: Path, sample: Make) -> None:
    """Frames of two teachers in one file would both be read by the first header."""
    shard = shard_of(tmp_path)
    shard.append(sample(0), frame(0))
    shard.commit()
    shard.close()
    with pytest.raises(PipelineError, match="another teacher"):
        shard_of(tmp_path).begin(b"OTHER TEACHER")


def test_interrupted_commit_writes_nothing_twice(tmp_path: Path, sample: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during fsync, then the commit on the way out: the records must be there once, and be accepted."""
    shard = shard_of(tmp_path)
    shard.append(sample(0), frame(0))
    calls = []

    def interrupted(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 3:  # folder, frames, lines
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shard.commit()
    shard.commit()
    assert shard.lines_path.read_bytes().count(b"\n") == 1
    assert shard_of(tmp_path).done == {"s0"}


def test_commit_comes_due_by_number_and_by_time(tmp_path: Path, sample: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The promise is 64 samples or one second at risk, not more."""
    monkeypatch.setattr(store, "COMMIT_SAMPLES", 2)
    shard = shard_of(tmp_path)
    shard.append(sample(0))
    store.commit_if_due([shard])
    assert not shard.lines_path.exists()
    shard.append(sample(1))
    store.commit_if_due([shard])
    assert shard.lines_path.read_bytes().count(b"\n") == 2
    monkeypatch.setattr(store, "COMMIT_SECONDS", 0.0)
    shard.append(sample(2))
    store.commit_if_due([shard])
    assert shard.lines_path.read_bytes().count(b"\n") == 3


def test_atomic_write_leaves_old_or_new(tmp_path: Path) -> None:
    """A reader must never see half a manifest."""
    store.write_json(tmp_path / "m.json", {"a": 1})
    store.write_json(tmp_path / "m.json", {"a": 2})
    assert store.read_json(tmp_path / "m.json") == {"a": 2}
    assert os.listdir(tmp_path) == ["m.json"]
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(PipelineError, match=r"m\.json:1: not JSON"):
        store.read_json(tmp_path / "m.json")
