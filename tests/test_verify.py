"""verify finds every kind of damage, names it, and passes what is whole."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline import stage
from pipeline.config import load
from pipeline.errors import PipelineError
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate
from pipeline.topk import TopK
from pipeline.verify import Capture, verify


@pytest.fixture
def run_dir(workshop: Path) -> Path:
    config = load(workshop / "config.yaml")
    stage.execute(generate, config)
    stage.execute(filter_stage, config)
    return workshop / "run"


def test_whole_run_passes_with_its_figures(run_dir: Path) -> None:
    """What is printed is what a user decides by: bytes a token, mass covered."""
    generated, filtered = sorted(verify(run_dir), key=lambda line: line.startswith("filter"))
    assert "ok: 9 files, 60 samples" in generated
    assert "entries a token cover 0." in generated
    assert "ok: 2 files" in filtered


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)


def swap_frames(path: Path) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["frame"], lines[1]["frame"] = lines[1]["frame"], lines[0]["frame"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def double(path: Path) -> None:
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[0])


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("00001.topk", flip, r"00001\.topk: the frame at \d+ fails its checksum"),
        ("00001.topk", flip, r"00001\.topk: is not what the stage wrote"),
        ("00000.jsonl", swap_frames, "its stored logprobs are not those of its tokens"),
        ("00000.jsonl", double, "is there 2 times"),
        ("00002.jsonl", Path.unlink, r"00002\.jsonl: is gone"),
    ],
)
def test_damage_is_named(run_dir: Path, name: str, damage: Callable[[Path], None], expected: str) -> None:
    """A flipped bit, frames of other samples, a doubled line, a lost file."""
    damage(run_dir / "generate" / name)
    with pytest.raises(PipelineError, match=expected):
        list(verify(run_dir))


def test_mass_and_its_percentile() -> None:
    """Against numpy on the plain values."""
    tail = np.log(np.random.default_rng(0).uniform(0.001, 0.3, 5000)).astype(np.float32)
    capture = Capture()
    capture.add(TopK(np.zeros((5000, 1), np.int64), np.zeros((5000, 1), np.float32), tail))
    mean, low = capture.mass()
    assert mean == pytest.approx(1 - np.exp(tail).mean(), abs=1e-3)
    assert low == pytest.approx(np.quantile(1 - np.exp(tail), 0.01), abs=1e-3)


def test_nothing_to_verify(tmp_path: Path) -> None:
    """A wrong path must not pass as a whole run."""
    with pytest.raises(PipelineError, match="no stage is finished here"):
        list(verify(tmp_path))
