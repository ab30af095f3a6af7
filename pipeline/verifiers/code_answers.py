"""Run a Python program against its unit tests, in a confined process of its own.

docs/reference/metrics.md says what a program may do.
"""

import contextlib
import fcntl
import math
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import PipelineError, UnknownError
from pipeline.records import Score
from pipeline.verifiers.code_fence import code_blocks, unfenced
from pipeline.verifiers.sandbox.sandbox import INVALID_REPLY, SandboxedProcess

PREFIX = "distillation-program."  # of the temporary folder of a program
UNLOCKED_SECONDS = 60.0  # a younger folder may not be locked yet
LONGEST_EXPLANATION = 1000  # characters
PYTHON = ("", "python", "python3", "py", "py3")  # languages of a block that is run
RUNNER = Path(__file__).with_name("sandbox") / "program_runner.py"


def check(answer: str, target: str, timeout_s: float, memory_mib: int) -> Score:
    """Return the share of the tests in `target` that pass once the program `answer` has run.

    Raises UnknownError where the program cannot be blamed.
    """
    # a program that exits early, or writes to the pipe itself, does not know the token
    token = secrets.token_hex(16)
    blocks, _ = code_blocks(answer)
    request = {
        "answer": unfenced(answer),
        "blocks": [block.text for block in blocks if block.language in PYTHON],
        "target": unfenced(target),
        "token": token,
        "seconds": math.ceil(timeout_s) + 1,
        "memory_mib": memory_mib,
    }
    # all of -I except its random order of sets, which would change a program's results
    command = [sys.executable, "-P", "-s", "-S", str(RUNNER), str(os.getpid())]
    with _temporary_folder() as folder:
        reply = _ask(command, request, memory_mib, timeout_s, folder)
    if not isinstance(reply, dict) or reply.pop("token", None) != token:
        raise UnknownError(INVALID_REPLY)
    if reply == {"unconfined": True}:
        raise PipelineError(
            "metric code: this system cannot confine a process (seccomp on Linux, x86-64), "
            "so no program is run; use a system that can"
        )
    return _score(reply, answer)


class _Counts(BaseModel):
    """How many tests passed. The program can have changed the reply, so nothing is assumed."""

    model_config = ConfigDict(strict=True, extra="forbid")

    passed: int = Field(ge=0)
    total: int = Field(ge=1)
    explanation: str = Field(max_length=LONGEST_EXPLANATION)


def _score(reply: Any, answer: str) -> Score:
    """Return the score of a reply, {"passed", "total", "explanation"} or {"unknown"}."""
    for key in ("unknown", "explanation"):
        if isinstance(reply.get(key), str):  # an error's text can hold half of a character
            reply[key] = reply[key].encode(errors="replace").decode()[:LONGEST_EXPLANATION]
    unknown = reply.get("unknown")
    if isinstance(unknown, str):
        raise UnknownError(unknown)
    try:
        counts = _Counts.model_validate(reply)
    except ValidationError:
        raise UnknownError(INVALID_REPLY) from None
    if counts.passed > counts.total:
        raise UnknownError(INVALID_REPLY)
    value = counts.passed / counts.total
    return Score(value=value, answer=answer, explanation=counts.explanation)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Make a folder for one program, and remove it afterwards with all that is in it.

    It is locked while this process lives. Folders of processes that were killed have no lock, and
    the first program of the next process removes them.
    """
    _remove_leftovers(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks has no leftovers removed
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(lock)
        _remove(folder)


@cache
def _remove_leftovers(parent: str) -> None:
    """Remove this user's folders of programs that no process uses any more."""
    for folder in Path(parent).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, UnknownError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                status = os.fstat(lock)
                is_old = time.time() - status.st_mtime > UNLOCKED_SECONDS
                if status.st_uid == os.getuid() and is_old:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(folder)
            finally:
                os.close(lock)


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
