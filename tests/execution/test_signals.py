"""Ctrl-C and SIGTERM outside the loop over answers, and through pipeline run.

Inside the loop, tests/inference/test_durability.py tests them.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.config import load
from pipeline.errors import Stopped
from pipeline.execution import runner
from pipeline.execution.signals import run_child
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate
from pipeline.storage.locks import Lock

LINE = "the same command continues from here"


def start(
    started: list[subprocess.Popen[str]], name: str, workshop: Path, *overrides: str
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipeline", name, str(workshop / "config.yaml"), *overrides]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    options = {"text": True, "start_new_session": True, **pipes}
    started.append(subprocess.Popen(command, **options))  # type: ignore[call-overload]
    return started[-1]


def read_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"it ended without saying {words!r}")


def journal(workshop: Path) -> int:
    return sum(
        path.read_bytes().count(b"\n")
        for path in (workshop / "run" / "generate").glob("*.journal.jsonl")
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_waiting_for_others(
    workshop: Path, number: signal.Signals, started: list[subprocess.Popen[str]]
) -> None:
    """SIGTERM outside the loop killed the process without a message."""
    folder = workshop / "run" / "generate"
    folder.mkdir(parents=True)
    other = Lock(folder / "00000.lock")
    assert other.take()
    process = start(started, "generate", workshop, "generate.shard_size=30")
    read_until(process, "other processes have the rest")
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    other.release()
    assert (process.returncode, LINE in out) == (128 + number, True)


def test_signal_while_a_student_is_trained(
    workshop: Path, started: list[subprocess.Popen[str]]
) -> None:
    """After a batch system's SIGTERM, the log must say what to do next, without a traceback."""
    config = load(workshop / "config.yaml")
    for module in (generate, filter_stage):
        runner.execute(module, config)
    process = start(started, "train", workshop, "train.epochs=100000")
    read_until(process, "rows, from")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, LINE in out, "Traceback" in out) == (143, True, False), out


@pytest.mark.parametrize("everybody", [False, True], ids=["parent", "group"])
def test_ctrl_c_of_a_whole_run(
    workshop: Path, everybody: bool, started: list[subprocess.Popen[str]]
) -> None:
    """A SIGINT to the parent alone was swallowed, and one to all processes counted twice."""
    process = start(started, "run", workshop, "teacher.delay_s=1", "generate.shard_size=30")
    while journal(workshop) < 4:
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.4)  # the next batch is in flight now
    there = journal(workshop)
    (os.killpg if everybody else os.kill)(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out.count(LINE), "--- filter" in out) == (130, 1, False), out
    assert journal(workshop) >= there + 4
    lock = Lock(workshop / "run" / "generate" / "00000.lock")
    assert lock.take()  # its stage is gone
    lock.release()


def test_signal_as_a_stage_ends_stops_the_run() -> None:
    """A stage that was just done ignored the signal, and the next stage started."""
    tell_parent = (
        "import os, signal, time; signal.signal(15, lambda *_: os._exit(0)); "
        "os.kill(os.getppid(), 15); time.sleep(20)"
    )
    with pytest.raises(Stopped) as stop:
        run_child([sys.executable, "-c", tell_parent])
    assert stop.value.signal == signal.SIGTERM
    assert run_child([sys.executable, "-c", "raise SystemExit(3)"]) == 3
