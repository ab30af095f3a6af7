"""A Python program held against its unit tests, in a process of its own that can do next to nothing else (docs/reference/metrics.md)."""

import math
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records import Score
from pipeline.verifiers.code_fence import unfenced
from pipeline.verifiers.sandbox.sandbox import SandboxedProcess, UnknownError

RUNNER = Path(__file__).with_name("sandbox") / "program_runner.py"


def check(answer: str, target: str, timeout_s: float, memory_mib: int) -> Score:
    """The share of the tests in `target` that pass once `answer` has run. Raises UnknownError for what is not its own doing."""
    # a program that exits early, or writes to the pipe, does not know the token unless it searches the runner's memory for it
    token = secrets.token_hex(16)
    request = {
        "answer": unfenced(answer),
        "target": unfenced(target),
        "token": token,
        "seconds": math.ceil(timeout_s) + 1,
        "memory_mib": memory_mib,
    }
    # what -I is, but for the order of sets: with the same program it would be another one each time
    command = [sys.executable, "-P", "-s", "-S", str(RUNNER), str(os.getpid())]
    folder = Path(tempfile.mkdtemp(prefix="program."))
    try:
        found = _asked(command, request, memory_mib, timeout_s, folder)
    finally:
        _remove(folder)
    if not isinstance(found, dict) or found.get("token") != token:
        raise UnknownError("the check talked nonsense")
    if "unlocked" in found:
        raise PipelineError(
            "metric code: this system lets no process lock itself in (seccomp on Linux, x86-64), so no program is run; use one that does"
        )
    if "unknown" in found:
        raise UnknownError(str(found["unknown"]))
    return Score(
        value=found["passed"] / found["total"], answer=answer, explanation=found["explanation"]
    )


def _asked(
    command: Sequence[str], request: Any, memory_mib: int, timeout_s: float, folder: Path
) -> Any:
    """What a program says that may write to a folder below `folder`."""
    (folder / "own").mkdir()
    process = SandboxedProcess(
        command, memory_mib, env={"PYTHONHASHSEED": "0"}, cwd=str(folder / "own")
    )
    try:
        until = time.monotonic() + timeout_s
        process.send(request, until)
        return process.receive(until)
    finally:
        process.end()


def _remove(folder: Path) -> None:
    """Remove it with all in it. Raises UnknownError if the program has left what cannot be removed.

    Folders in folders are moved up first, so that neither a path nor a recursion goes as deep as a program may go.
    """
    try:
        below, moved = list(folder.iterdir()), 0
        while below:
            inner = below.pop()
            for entry in list(os.scandir(inner)):
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)
                    moved += 1
                    below.append(Path(entry.path).rename(folder / str(moved)))
                else:
                    os.unlink(entry.path)
            inner.rmdir()
        folder.rmdir()
    except OSError as error:
        raise UnknownError(f"its folder cannot be removed: {error}") from None
