"""A Python program held against its unit tests, in a process of its own that can do next to nothing else (docs/verifiers.md)."""

import math
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.records import Score
from pipeline.verifiers.jail import Inmate, UnknownError
from pipeline.verifiers.text import unfenced

RUNNER = Path(__file__).with_name("runner.py")


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
    with tempfile.TemporaryDirectory(prefix="program.") as folder:
        inmate = Inmate(command, memory_mib, env={"PYTHONHASHSEED": "0"}, cwd=folder)
        try:
            until = time.monotonic() + timeout_s
            inmate.send(request, until)
            found = inmate.receive(until)
        finally:
            inmate.end()
    if not isinstance(found, dict) or found.get("token") != token:
        raise UnknownError("the check talked nonsense")
    if "unlocked" in found:
        raise PipelineError(
            "metric code: this system lets no process lock itself in (seccomp on Linux, x86-64), so no program is run; use one that does"
        )
    if "unknown" in found:
        raise UnknownError(str(found["unknown"]))
    return Score(value=found["passed"] / found["total"], answer=answer, explanation=found["explanation"])
