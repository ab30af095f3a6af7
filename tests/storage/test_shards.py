"""Shards: commits survive, a torn tail is cut, damage is named, sealed shards stay."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.records import Failed, Sample
from pipeline.storage import files, journal
from pipeline.storage.journal import Shard, read_failures, sweep
from pipeline.storage.shards import read_records
from pipeline.storage.topk import TopKFile
from tests.support.topk import header

HEADER = header().to_bytes()
Make = Callable[..., Sample]


def shard_of(folder: Path, count: int = 4, header: bytes = HEADER) -> Shard[Sample]:
    shard = Shard(folder, 0, Sample)
    if shard.claim():
        shard.recover([f"s{n}" for n in range(count)], header)
    return shard


def frame(number: int) -> bytes:
    return struct.pack("<I", number) * (number + 1)


def frames_fit(folder: Path) -> bool:
    data = (folder / "00000.topk").read_bytes()
    return all(journal.frame_holds(s, data) for s in read_records(folder, Sample))


def test_sealed_shard_is_in_input_order_whatever_came_first(tmp_path: Path, sample: Make) -> None:
    """Completions come in any order; files must not depend on it."""
    shard = shard_of(tmp_path)
    for number in (2, 0, 3, 1):
        shard.add(sample(number), frame(number))
    shard.seal()
    assert [s.id for s in read_records(tmp_path, Sample)] == ["s0", "s1", "s2", "s3"]
    assert frames_fit(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["00000.jsonl.gz", "00000.topk"]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_torn_line_is_cut_and_made_again(tmp_path: Path, sample: Make, cut: int) -> None:
    """A kill in the middle of a line must cost that line only."""
    shard = shard_of(tmp_path)
    for number in (0, 1):
        shard.add(sample(number), frame(number))
    shard.commit()
    shard.release()
    os.truncate(shard.lines_path, shard.lines_path.stat().st_size - cut)
    again = shard_of(tmp_path)
    assert again.done == {"s0"}
    for number in (1, 2, 3):
        again.add(sample(number), frame(number))
    again.seal()
    assert len(list(read_records(tmp_path, Sample))) == 4
    assert frames_fit(tmp_path)


def test_line_without_its_frame_does_not_count(tmp_path: Path, sample: Make) -> None:
    """The line is the commit, but only with the frame it points to."""
    shard = shard_of(tmp_path)
    for number in (0, 1):
        shard.add(sample(number), frame(number))
    shard.commit()
    shard.release()
    os.truncate(shard.frames_path, shard.frames_path.stat().st_size - 1)
    assert shard_of(tmp_path).done == {"s0"}


def test_frames_without_a_line_are_dropped(tmp_path: Path, sample: Make) -> None:
    """A kill before a frame's line leaves bytes without a line; the next frame replaces them."""
    shard = shard_of(tmp_path)
    shard.add(sample(0), frame(0))
    shard.commit()
    shard.release()
    with shard.frames_path.open("ab") as file:
        file.write(b"left over")
    again = shard_of(tmp_path)
    for number in (1, 2, 3):
        again.add(sample(number), frame(number))
    again.seal()
    assert frames_fit(tmp_path)


def test_damage_in_the_middle_is_set_aside_and_made_again(
    tmp_path: Path, sample: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flipped bit is no torn tail: good lines after it stay, the bad one goes to quarantine."""
    shard = shard_of(tmp_path)
    for number in (0, 1, 2):
        shard.add(sample(number), frame(number))
    shard.commit()
    shard.release()
    lines = shard.lines_path.read_bytes().splitlines(keepends=True)
    damaged = lines[0] + b"{broken\n" + lines[2]
    shard.lines_path.write_bytes(damaged)
    again = shard_of(tmp_path)
    assert again.missing == ["s1", "s3"]
    assert "00000.journal.jsonl:2" in capsys.readouterr().err
    assert (tmp_path / "quarantine" / "00000.journal.jsonl").read_bytes() == damaged
    for number in (3, 1):
        again.add(sample(number), frame(number))
    again.seal()
    assert [s.id for s in read_records(tmp_path, Sample)] == ["s0", "s1", "s2", "s3"]
    assert frames_fit(tmp_path)


def test_damaged_header_is_written_anew(tmp_path: Path, sample: Make) -> None:
    """Frames have their own checksums; a damaged header must not cost them."""
    shard = shard_of(tmp_path)
    shard.add(sample(0), frame(0))
    shard.commit()
    shard.release()
    data = bytearray(shard.frames_path.read_bytes())
    data[20] ^= 1
    shard.frames_path.write_bytes(data)
    assert shard_of(tmp_path).done == {"s0"}
    assert shard.frames_path.read_bytes().startswith(HEADER)


def test_shard_goes_on_after_an_upgrade_of_the_engine(
    tmp_path: Path, sample: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shard of an older engine could only be thrown away; now its header names all engines."""
    for number, engine in enumerate(["vllm 0.32.0", "vllm 0.9", "vllm 0.33.0.dev1", "vllm 0.9"]):
        shard = shard_of(tmp_path, header=header(engine=engine).to_bytes())
        assert len(shard.done) == number
        shard.add(sample(number), frame(number))
        shard.commit()
        shard.release()
    assert capsys.readouterr().err.count("the sealed shard will name both") == 2
    shard_of(tmp_path, header=header(engine="vllm 0.9").to_bytes()).seal()
    assert TopKFile(tmp_path / "00000.topk").header == header(
        engine="vllm 0.32.0, vllm 0.9, vllm 0.33.0.dev1"
    )
    assert frames_fit(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["00000.jsonl.gz", "00000.topk"]


def test_shard_of_another_teacher_is_refused(tmp_path: Path, sample: Make) -> None:
    """Distributions over another vocabulary must not follow the same header."""
    shard = shard_of(tmp_path)
    shard.add(sample(0), frame(0))
    shard.commit()
    shard.release()
    with pytest.raises(PipelineError, match="started with another teacher, tokenizer or settings"):
        shard_of(tmp_path, header=header(tokenizer="other", engine="fake 3").to_bytes())


def test_failure_is_durable_and_leaves_its_place_empty(tmp_path: Path, sample: Make) -> None:
    """A row that always fails must not keep its shard open, nor be asked again by itself."""
    shard = shard_of(tmp_path, 2)
    shard.fail(Failed(id="s0", number=0, index=0, reason="too_long", message="9 tokens"))
    shard.commit()
    shard.release()
    with shard.errors_path.open("ab") as file:
        file.write(b'{"id": "s1", torn')
    again = shard_of(tmp_path, 2)
    assert again.missing == ["s1"]
    again.add(sample(1), frame(1))
    assert again.complete
    again.seal()
    assert [s.id for s in read_records(tmp_path, Sample)] == ["s1"]
    assert [(f.id, f.reason) for f in read_failures(shard.errors_path)] == [("s0", "too_long")]


def test_kill_before_the_last_rename_seals_again(tmp_path: Path, sample: Make) -> None:
    """A sealed .topk without its .jsonl is half a seal; the journal still has everything."""
    shard = shard_of(tmp_path)
    for number in range(4):
        shard.add(sample(number), frame(number))
    shard.commit()
    shard.release()
    (tmp_path / "00000.topk").write_bytes(b"half a seal")
    again = shard_of(tmp_path)
    assert again.complete
    again.seal()
    assert frames_fit(tmp_path)


def test_sealed_shard_is_never_touched(tmp_path: Path, sample: Make) -> None:
    """A sealed shard cannot be claimed, and a journal that a kill left beside it is removed."""
    shard = shard_of(tmp_path)
    for number in range(4):
        shard.add(sample(number), frame(number))
    shard.seal()
    before = [(tmp_path / name).stat().st_mtime_ns for name in ("00000.jsonl.gz", "00000.topk")]
    shard.lines_path.write_bytes(b"left over")
    sweep(tmp_path)
    assert not Shard(tmp_path, 0, Sample).claim()
    assert [
        (tmp_path / name).stat().st_mtime_ns for name in ("00000.jsonl.gz", "00000.topk")
    ] == before
    assert not shard.lines_path.exists()


def test_other_header_is_refused(tmp_path: Path, sample: Make) -> None:
    """Frames of two teachers in one file would both be read by the first header."""
    shard = shard_of(tmp_path)
    shard.add(sample(0), frame(0))
    shard.commit()
    shard.release()
    with pytest.raises(PipelineError, match="another teacher"):
        shard_of(tmp_path, header=header(teacher="another").to_bytes())


def test_interrupted_commit_writes_nothing_twice(
    tmp_path: Path, sample: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C during fsync, then the last commit: each record must be written once."""
    shard = shard_of(tmp_path)
    shard.add(sample(0), frame(0))
    calls = []

    def interrupted(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 5:  # header, folder, frames, folder, lines
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shard.commit()
    shard.commit()
    assert shard.lines_path.read_bytes().count(b"\n") == 1
    assert shard_of(tmp_path).done == {"s0"}


def test_commit_comes_due_by_number_and_by_time(
    tmp_path: Path, sample: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 64 samples or one second of work may be at risk."""
    monkeypatch.setattr(journal, "COMMIT_SAMPLES", 2)
    shard = shard_of(tmp_path)
    shard.add(sample(0))
    journal.commit_if_due([shard])
    assert not shard.lines_path.exists()
    shard.add(sample(1))
    journal.commit_if_due([shard])
    assert shard.lines_path.read_bytes().count(b"\n") == 2
    monkeypatch.setattr(journal, "COMMIT_SECONDS", 0.0)
    shard.add(sample(2))
    journal.commit_if_due([shard])
    assert shard.lines_path.read_bytes().count(b"\n") == 3


def test_atomic_write_leaves_old_or_new(tmp_path: Path) -> None:
    """A reader must never see half a manifest."""
    files.write_json(tmp_path / "m.json", {"a": 1})
    files.write_json(tmp_path / "m.json", {"a": 2})
    assert files.read_json(tmp_path / "m.json") == {"a": 2}
    assert os.listdir(tmp_path) == ["m.json"]
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(PipelineError, match=r"m\.json:1: not JSON"):
        files.read_json(tmp_path / "m.json")
