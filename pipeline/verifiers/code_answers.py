"""Run a Python program against its unit tests, in a confined process of its own.

docs/reference/metrics.md says what a program may do.
"""

import math
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, UnknownError
from pipeline.records import Score
from pipeline.verifiers.code_fence import unfenced
from pipeline.verifiers.sandbox.sandbox import INVALID_REPLY, SandboxedProcess

RUNNER = Path(__file__).with_name("sandbox") / "program_runner.py"


def check(answer: str, target: str, timeout_s: float, memory_mib: int) -> Score:
    """Return the share of the tests in `target` that pass once the program `answer` has run.

    Raises UnknownError where the program cannot be blamed.
    """
    # a program that exits early, or writes to the pipe itself, does not know the token
    token = secrets.token_hex(16)
    request = {
        "answer": unfenced(answer),
        "target": unfenced(target),
        "token": token,
        "seconds": math.ceil(timeout_s) + 1,
        "memory_mib": memory_mib,
    }
    # all of -I except its random order of sets, which would change a program's results
    command = [sys.executable, "-P", "-s", "-S", str(RUNNER), str(os.getpid())]
    folder = Path(tempfile.mkdtemp(prefix="program."))
    try:
        reply = _ask(command, request, memory_mib, timeout_s, folder)
    finally:
        _remove(folder)
    if not isinstance(reply, dict) or reply.get("token") != token:
        raise UnknownError(INVALID_REPLY)
    if "unconfined" in reply:
        raise PipelineError(
            "metric code: this system cannot confine a process (seccomp on Linux, x86-64), "
            "so no program is run; use a system that can"
        )
    if "unknown" in reply:
        raise UnknownError(str(reply["unknown"]))
    value = reply["passed"] / reply["total"]
    return Score(value=value, answer=answer, explanation=reply["explanation"])


def _ask(
    command: Sequence[str], request: Any, memory_mib: int, timeout_s: float, folder: Path
) -> Any:
    """Run the command, which may write to a folder inside `folder`, and return its reply."""
    work = folder / "own"
    work.mkdir()
    process = SandboxedProcess(command, memory_mib, env={"PYTHONHASHSEED": "0"}, cwd=str(work))
    try:
        deadline = time.monotonic() + timeout_s
        process.send(request, deadline)
        return process.receive(deadline)
    finally:
        process.end()


def _remove(folder: Path) -> None:
    """Remove the folder with its content, or raise UnknownError.

    Nested folders are moved up first: a program may nest them deeper than a path or a recursion
    can go.
    """
    try:
        waiting = list(folder.iterdir())
        moved = 0
        while waiting:
            current = waiting.pop()
            for entry in list(os.scandir(current)):
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)
                    moved += 1
                    waiting.append(Path(entry.path).rename(folder / str(moved)))
                else:
                    os.unlink(entry.path)
            current.rmdir()
        folder.rmdir()
    except OSError as error:
        raise UnknownError(f"its folder cannot be removed: {error}") from None
