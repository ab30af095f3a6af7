"""verify names every kind of damage and passes an intact run; --repair fixes what it can."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import load
from pipeline.errors import PipelineError
from pipeline.execution import runner
from pipeline.inspection.verify import Capture, repair, verify
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate
from pipeline.storage.shards import pack_lines, read_lines
from pipeline.storage.topk import TopK


@pytest.fixture
def run_dir(workshop: Path) -> Path:
    config = load(workshop / "config.yaml")
    runner.execute(generate, config)
    runner.execute(filter_stage, config)
    return workshop / "run"


def test_whole_run_passes_with_its_figures(run_dir: Path) -> None:
    """Users decide by the printed figures: bytes/token and the mass that entries cover."""
    generated, filtered = sorted(verify(run_dir), key=lambda line: line.startswith("filter"))
    assert "ok: 9 files, 60 samples" in generated
    assert "exact entries/token cover 0." in generated
    assert "ok: 3 files" in filtered


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)


def swap_frames(path: Path) -> None:
    lines = [json.loads(line) for line in read_lines(path)]
    lines[0]["frame"], lines[1]["frame"] = lines[1]["frame"], lines[0]["frame"]
    path.write_bytes(pack_lines(json.dumps(line).encode() + b"\n" for line in lines))


def double(path: Path) -> None:
    lines = list(read_lines(path))
    path.write_bytes(pack_lines([*lines, lines[0]]))


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("00001.topk", flip, r"00001\.topk: the frame at \d+ fails its checksum"),
        ("00001.topk", flip, r"00001\.topk: is not what the stage wrote"),
        ("00000.jsonl.gz", swap_frames, r"line|not that of these tokens"),
        ("00000.jsonl.gz", double, "is stored 2 times"),
        ("00002.jsonl.gz", Path.unlink, r"00002\.jsonl\.gz: is missing"),
    ],
)
def test_damage_is_named(
    run_dir: Path, name: str, damage: Callable[[Path], None], expected: str
) -> None:
    """A flipped bit, swapped frames, a doubled line and a lost file are all found."""
    damage(run_dir / "generate" / name)
    with pytest.raises(PipelineError, match=expected):
        list(verify(run_dir))


def test_mass_and_its_percentile() -> None:
    """Mean and percentile agree with numpy; a sampled entry covers no mass exactly."""
    mass = np.random.default_rng(0).uniform(0.3, 0.9, 5000).astype(np.float32)
    entries = np.log(np.stack([mass, np.full_like(mass, 0.05)], axis=1))
    capture = Capture()
    capture.add(
        TopK(
            np.zeros((5000, 2), np.int64),
            entries,
            np.full(5000, np.log(0.05), np.float32),
            np.ones(5000, np.int64),
        )
    )
    mean, low = capture.mass()
    assert mean == pytest.approx(mass.mean(), abs=1e-3)
    assert low == pytest.approx(np.quantile(mass, 0.01), abs=1e-3)
    assert (capture.exact, capture.drawn) == (5000, 5000)
    assert capture.tail / 5000 == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("name", "damage", "kept"),
    [("00001.topk", flip, 15), ("00001.jsonl.gz", flip, 0), ("00001.jsonl.gz", Path.unlink, 0)],
)
def test_damaged_shard_is_repaired(
    run_dir: Path, workshop: Path, name: str, damage: Callable[[Path], None], kept: int
) -> None:
    """Only the damaged part is regenerated, with the same result; the damaged file is kept."""
    folder = run_dir / "generate"
    before = {path.name: path.read_bytes() for path in folder.glob("0*")}
    damage(folder / name)
    (line,) = repair(run_dir)
    assert f"00001.jsonl.gz: archived in quarantine/, {kept} of its samples kept" in line
    assert (folder / "quarantine" / name).exists() or damage is not flip
    assert not list(repair(run_dir))
    assert runner.execute(generate, load(workshop / "config.yaml"))
    assert {path.name: path.read_bytes() for path in folder.glob("0*")} == before


@pytest.mark.parametrize(
    "not_moved",
    [["00001.jsonl.gz", "00001.topk"], ["00001.topk"], []],
    ids=["journal", "lines moved", "frames moved"],
)
def test_repair_killed_midway_goes_on(run_dir: Path, workshop: Path, not_moved: list[str]) -> None:
    """A kill at any step of a repair loses nothing: another --repair, or none, and the stage's
    command restore the same files."""
    folder = run_dir / "generate"
    before = {path.name: path.read_bytes() for path in folder.glob("0*")}
    manifest = (folder / "manifest.json").read_bytes()
    flip(folder / "00001.topk")
    list(repair(run_dir))
    (folder / "manifest.json").write_bytes(manifest)  # is removed last
    for name in not_moved:
        (folder / "quarantine" / name).rename(folder / name)
    assert len(list(repair(run_dir))) == ("00001.jsonl.gz" in not_moved)
    assert runner.execute(generate, load(workshop / "config.yaml"))
    assert {path.name: path.read_bytes() for path in folder.glob("0*")} == before
    assert len(list(verify(run_dir))) == 2


@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_damaged_prompt_is_copied_anew(run_dir: Path, damage: Callable[[Path], None]) -> None:
    """--repair was advised for it and did nothing. Now the prompt is restored, and the stage stays
    finished."""
    prompt = run_dir / "generate" / "prompts" / "0.md"
    before = prompt.read_bytes()
    damage(prompt)
    with pytest.raises(PipelineError, match=r"prompts/0\.md: is .*--repair"):
        list(verify(run_dir))
    (line,) = repair(run_dir)
    assert "prompts/0.md: restored from " in line
    assert prompt.read_bytes() == before
    assert len(list(verify(run_dir))) == 2


def test_damaged_prompt_whose_file_was_edited(run_dir: Path, workshop: Path) -> None:
    """Another prompt must not take its place; shards are repaired all the same."""
    flip(run_dir / "generate" / "prompts" / "0.md")
    flip(run_dir / "generate" / "00001.topk")
    (workshop / "prompt.md").write_text("another one")
    lines = repair(run_dir)
    assert "00001.jsonl.gz: archived" in next(lines)
    with pytest.raises(
        PipelineError,
        match=r"prompts/0\.md: is damaged, and no prompt file has its content .*put it back",
    ):
        next(lines)


def test_nothing_to_verify(tmp_path: Path) -> None:
    """A wrong path must not pass as an intact run."""
    with pytest.raises(PipelineError, match="no stage is finished here"):
        list(verify(tmp_path))
