"""Damaged checkpoints, full disks and modes of files."""

import logging
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import Train, load
from pipeline.errors import PipelineError
from pipeline.execution import runner
from pipeline.models import saving
from pipeline.stages import train
from pipeline.training.checkpoints import last_checkpoint
from tests.support.processes import finish, start
from tests.support.training import losses, prepared

OPTIONS = ("train.epochs=6", "train.save_steps=3", "train.log_steps=1")


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def test_training_falls_back_to_the_checkpoint_before(
    workshop: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A cut file in the newest checkpoint ended in a traceback at every start."""
    config = prepared(workshop, *OPTIONS)
    runner.execute(train, config, ["init", "kd"])
    folder = Path(config.run_dir) / "train" / "kd"
    before = losses(config, "kd")
    older, newest = sorted(
        folder.glob("checkpoints/checkpoint-*"), key=lambda path: int(path.name.split("-")[1])
    )
    kept = folder.parent / "kept"
    shutil.copytree(newest, kept)
    logger = logging.getLogger("pipeline")
    logger.addHandler(caplog.handler)
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        for share in (0.0, 0.6):
            cut(newest / name, share)
            assert last_checkpoint(folder / "checkpoints") == older
            assert f"{name} is damaged" in caplog.text
            shutil.copy(kept / name, newest / name)
        assert last_checkpoint(folder / "checkpoints") == newest
    flipped = bytearray((newest / "optimizer.pt").read_bytes())
    flipped[len(flipped) // 2] ^= 0xFF
    (newest / "optimizer.pt").write_bytes(flipped)
    (folder / "manifest.json").unlink()
    shutil.rmtree(folder / "model")
    runner.execute(train, config, ["kd"])
    logger.removeHandler(caplog.handler)
    assert losses(config, "kd") == pytest.approx(before, rel=1e-5)


def test_missing_parts_of_a_checkpoint_are_noticed(tmp_path: Path) -> None:
    """A checkpoint without weights or optimiser must not be continued from."""
    folder = tmp_path / "checkpoint-7"
    folder.mkdir()
    (folder / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) is None


def test_weights_have_the_mode_of_other_files(workshop: Path) -> None:
    """safetensors wrote 0600 beside files of 0644, which a server of another user cannot read."""
    config = prepared(workshop, *OPTIONS, "student.shape.layers=2")
    runner.execute(train, config, ["init", "sft"])
    files = [path for path in (Path(config.run_dir) / "train").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".safetensors", ".json", ".pt"}
    beside = stat.S_IMODE((workshop / "config.yaml").stat().st_mode)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in files if path.suffix != ".lock"}
    assert {path.name for path, mode in modes.items() if mode != beside} == set()


@pytest.mark.parametrize(
    "write",
    [
        "safetensors.torch.save_file({'w': torch.zeros(99999)}, path)",
        "torch.save(torch.zeros(99999), path)",
    ],
)
def test_a_full_disk_is_one_line(tmp_path: Path, write: str) -> None:
    """SafetensorError and RuntimeError for a disk that took no more were tracebacks."""
    program = f"""
import resource, sys, torch, safetensors.torch
from pathlib import Path
from pipeline.errors import PipelineError
from pipeline.models import saving
path = sys.argv[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (9999, 9999))
try:
    with saving.writing(Path(path)):
        {write}
except (PipelineError, OSError) as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "weights")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "could not be written" in done.stdout or "OSError" in done.stdout


def test_other_errors_of_a_write_are_not_hidden() -> None:
    """An error of a GPU must not be taken for a full disk."""
    with pytest.raises(RuntimeError, match="CUDA"), saving.writing(Path("x")):
        raise RuntimeError("CUDA error")
    with pytest.raises(PipelineError, match="is the disk full"), saving.writing(Path("x")):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0")


def test_checkpoints_of_finished_arms_are_deleted(workshop: Path) -> None:
    """The optimiser's state of two arms was most of a run folder of 1.7 GB."""
    config = prepared(workshop, *OPTIONS)
    runner.execute(train, config)
    folder = Path(config.run_dir) / "train"
    train.finish(config.model_copy(update={"train": keeping(config.train)}))
    assert list(folder.glob("sft/checkpoints/checkpoint-*"))
    train.finish(config)
    assert not list(folder.glob("*/checkpoints"))
    assert runner.is_done(train, config)


def keeping(settings: Train) -> Train:
    return settings.model_copy(update={"keep_checkpoints": True})


def test_ctrl_c_writes_a_checkpoint(workshop: Path) -> None:
    """Before the first checkpoint of save_steps, Ctrl-C lost the whole arm without a word."""
    options = ("train.epochs=60", "train.log_steps=1", "train.save_steps=100000")
    config = prepared(workshop, *options)
    runner.execute(train, config, ["init"])
    process = start(workshop, *options, stage_name="train")
    assert process.stderr is not None
    for line in process.stderr:
        if "steps" in line:
            process.send_signal(signal.SIGINT)
            break
    code, words = finish(process)
    assert code == 130
    assert "with a checkpoint" in words
    stopped = last_checkpoint(Path(config.run_dir) / "train" / "kd" / "checkpoints")
    assert stopped is not None
    runner.execute(train, config, ["kd"])
    again = load(workshop / "config.yaml", [*options, f"run_dir={workshop / 'again'}"])
    shutil.copytree(config.run_dir, again.run_dir, ignore=shutil.ignore_patterns("kd"))
    runner.execute(train, again, ["kd"])
    assert losses(config, "kd") == pytest.approx(losses(again, "kd"), rel=1e-4)
