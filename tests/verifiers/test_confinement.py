"""What docs/reference/metrics.md promises about programs: one test for each promise."""

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UnknownError
from pipeline.records import Score
from pipeline.verifiers import code_answers
from pipeline.verifiers.verify import CheckSettings, verify
from tests.support.task import ROOT

CHECK = CheckSettings("code", labels=None, schema=None, timeout_s=60.0, memory_mib=1024)
TESTS = "assert double(2) == 4\nassert double(-3) == -6\n"
RIGHT = "\ndef double(x): return 2 * x\n"
CALL = """
import ctypes, fcntl, os, struct
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    if libc.syscall(*arguments) == -1:
        raise OSError(ctypes.get_errno(), "refused")
reading, writing = os.pipe()
"""
ATTEMPTS = {
    "F_SETOWN": "fcntl.fcntl(reading, fcntl.F_SETOWN, os.getppid())",
    "F_SETOWN_EX": "fcntl.fcntl(reading, 15, struct.pack('ii', 1, os.getppid()))",
    "F_SETSIG": "fcntl.fcntl(reading, fcntl.F_SETSIG, 9)",
    "F_NOTIFY": "fcntl.fcntl(os.open('.', os.O_RDONLY), fcntl.F_NOTIFY, 2)",
    "F_SETLEASE": "fcntl.fcntl(os.open('/dev/null', os.O_RDONLY), fcntl.F_SETLEASE, 0)",
    "FIOSETOWN": "fcntl.ioctl(reading, 0x8901, struct.pack('i', os.getppid()))",
    "SIOCSPGRP": "fcntl.ioctl(reading, 0x8902, struct.pack('i', os.getppid()))",
    "FIOASYNC": "fcntl.ioctl(reading, 0x5452, struct.pack('i', 1))",
    "FS_IOC_SETFLAGS": "fcntl.ioctl(os.open('.', 0), 0x40086602, struct.pack('l', 0x10))",
    "upper half": "call(72, reading, 8 | 1 << 32, os.getppid())",
    "pidfd": "call(434, os.getppid(), 0)",
    "PDEATHSIG": "call(157, 1, 0, 0, 0, 0)",
    "setuid": "os.setuid(os.getuid())",
    "setfsuid": "call(122, 12345)",
    "capset": "call(126, struct.pack('Ii', 0x20080522, 0), bytes(24))",
    "dumpable": "call(157, 4, 0, 0, 0, 0)",
    "sethostname": "call(170, b'other', 5)",
    "clock_settime": "call(227, 0, struct.pack('qq', 0, 0))",
    "reboot": "call(169, 0, 0, 0, 0)",
    "affinity": "os.sched_setaffinity(os.getppid(), {0})",
    "scheduler": "os.sched_setscheduler(os.getppid(), os.SCHED_BATCH, os.sched_param(0))",
    "inotify": "call(294, 0)",
    "fanotify": "call(300, 0, 0)",
    "list": "os.listdir(PATH)",
    "list of processes": "os.listdir('/proc')",
    "read": "open(PATH + '/precious')",
    "another's memory": "open(f'/proc/{os.getppid()}/mem', 'rb')",
    "bind": "__import__('socket').socketpair()[0].bind('there')",
    "sendto": "__import__('socket').socketpair(type=2)[0].sendto(b'x', '/dev/log')",
    "shared memory": "call(31, 0, 0, 0)",
    "kill": "os.kill(os.getppid(), 9)",
}


def program(code: str, **changes: Any) -> Score:
    return verify(CheckSettings(**{**vars(CHECK), **changes}), code + RIGHT, TESTS)


@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_program_cannot_leave_its_folder_and_process(name: str, tmp_path: Path) -> None:
    """By the first five, a program once killed the process that filtered the run."""
    (tmp_path / "precious").write_text("text")
    attempt = ATTEMPTS[name].replace("PATH", repr(str(tmp_path)))
    with pytest.raises(UnknownError, match="PermissionError"):
        program(CALL + attempt)


def test_calls_of_later_kernels_do_not_exist() -> None:
    """The list of refused calls cannot name what was not there when it was written."""
    newer = "try:\n    call(470)\nexcept OSError as error:\n    assert error.errno == 38\n"
    assert program(CALL + newer).value == 1.0


def test_a_program_has_no_capabilities() -> None:
    """As root it could once set the host's name and its clock."""
    reading = "lines = open('/proc/self/status').read()"
    code = f"""
import ctypes
from importlib.machinery import SourceFileLoader
path = {str(ROOT / "pipeline/verifiers/sandbox/confinement.py")!r}
confinement = SourceFileLoader("confinement", path).load_module()
confinement.drop_capabilities()
{reading}
print([line for line in lines.splitlines() if line.startswith("Cap")])
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = ["CapInh", "CapPrm", "CapEff", "CapAmb", *(["CapBnd"] if os.getuid() == 0 else [])]
    assert all(f"{name}:\\t{0:016x}" in shown.stdout for name in names)


def test_what_programs_need_is_allowed() -> None:
    """A wall that also stops threads, event loops and files would make good answers unknown."""
    code = """
import asyncio, fcntl, os, tempfile, threading, zoneinfo
from concurrent.futures import ThreadPoolExecutor
assert list(ThreadPoolExecutor(20).map(abs, [-1] * 100)) == [1] * 100
async def three(): await asyncio.sleep(0); return 3
assert asyncio.run(three()) == 3
os.makedirs("a/b"); open("a/b/c", "w").write("x")
assert os.listdir("a/b") == ["c"] and os.listdir(".") == ["a"]
with open("a/b/c") as file: fcntl.flock(file, fcntl.LOCK_EX)
assert zoneinfo.ZoneInfo("UTC")
"""
    assert program(code).value == 1.0


def test_a_program_cannot_start_threads_without_end() -> None:
    """Thousands of threads slow down all else on the machine."""
    code = """
import threading, time
threading.stack_size(65536)
for _ in range(20_000):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
"""
    with pytest.raises(UnknownError, match=r"threads|can't start new thread"):
        program(code)


FORGED = {
    "no JSON": "'text'",
    "a list": "'[1, 2]'",
    "a score of 50": 'D({**o, "passed": 100})',
    "less than nothing": 'D({**o, "passed": -1})',
    "no test": 'D({**o, "total": 0})',
    "a text": 'D({**o, "passed": "2"})',
    "a truth value": 'D({**o, "passed": True, "total": 1})',
    "a fraction": 'D({**o, "passed": 1.5})',
    "not a number": 'D({**o, "passed": float("nan")})',
    "a part": 'D({"token": o["token"], "passed": 1})',
    "more": 'D({**o, "value": 50})',
    "null": 'D({**o, "explanation": None})',
    "an unknown that is a list": 'D({"token": o["token"], "unknown": []})',
    "deep": '"[" * 100_000 + "]" * 100_000',
    "a huge number": 'D(o)[:-1] + ", \\"passed\\": " + "9" * 5000 + "}"',
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_reply_is_unknown(name: str) -> None:
    """A program that replaced json.dumps once ended the stage, or got a score of 50."""
    forging = f"import json\nD = json.dumps\njson.dumps = lambda o: {FORGED[name]}\n"
    with pytest.raises(UnknownError, match=r"invalid reply|exit code"):
        program(forging)


def test_half_a_character_in_an_error_is_shown_as_a_question_mark() -> None:
    """It cannot be written to a file, which once ended the stage after all checks."""
    score = program("raise ValueError(chr(0xD800))")
    assert score.value == 0.0
    json.dumps(score.model_dump(), ensure_ascii=False).encode()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_folders_of_killed_processes_are_removed(temporary: Path) -> None:
    """A run that is killed now and then would fill the disk."""
    old, used, young = (temporary / f"{code_answers.PREFIX}{name}" for name in ("o", "u", "y"))
    mine = temporary / "program.mine"
    for folder in (old / "own", used, young, mine):
        folder.mkdir(parents=True)
    for folder in (old, used, mine):
        os.utime(folder, (0, 0))
    holder = os.open(used, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    code_answers._remove_leftovers.cache_clear()
    assert program("").value == 1.0
    os.close(holder)
    assert set(temporary.iterdir()) == {used, young, mine}


def test_a_program_leaves_nothing_in_the_temporary_folder(temporary: Path) -> None:
    """Whatever it made, locked or nested, also if it was killed."""
    code = "import os\nos.makedirs('a/b')\nos.mkdir('shut', 0)\nos.symlink('/', 'root')\n"
    assert program(code).value == 1.0
    with pytest.raises(UnknownError):
        program(code + "while True: pass", timeout_s=1.0)
    assert list(temporary.iterdir()) == []
