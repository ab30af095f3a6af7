"""The sandbox survives whatever its process does, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PipelineError, ProcessLostError, UnknownError
from pipeline.verifiers.sandbox import confinement
from pipeline.verifiers.sandbox.sandbox import Sandbox
from tests.support.task import ROOT


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox("tests.support.sandboxed_worker", "", 60.0, 300)
    yield sandbox
    sandbox.close()


def ends(pid: int) -> bool:
    """Return whether the process ends within some seconds; a zombie has ended."""
    for _ in range(500):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_one_process_answers_many_requests(sandbox: Sandbox) -> None:
    """Starting a process for each request would take half a second each."""
    first = sandbox.ask("pid")
    large = {"text": "ü" * 100_000, "none": None}
    assert [sandbox.ask("pid"), sandbox.ask(large), sandbox.ask("print"), sandbox.ask("pid")] == [
        first,
        large,
        None,
        first,
    ]


@pytest.mark.parametrize("action", ["hang", "block signals", "dribble"])
def test_what_hangs_is_killed_and_the_next_is_answered(action: str) -> None:
    """A time-out that needs the help of the process that hangs would not come."""
    sandbox = Sandbox("tests.support.sandboxed_worker", "", 1.5, 300)
    pid = sandbox.ask("pid")
    with pytest.raises(UnknownError, match="took too long"):
        sandbox.ask(action)
    assert ends(pid)
    assert sandbox.ask("still there") == "still there"
    sandbox.close()


@pytest.mark.parametrize(
    ("action", "why"),
    [
        ("crash", "signal 11"),
        ("exit", "exit code 3"),
        ("raise", "exit code 1"),
        ("fork", "exit code 1"),
        ("eat", "took more than 300 MiB"),
        ("garbage", "invalid reply"),
    ],
)
def test_what_breaks_is_unknown_and_the_next_is_answered(
    sandbox: Sandbox, action: str, why: str
) -> None:
    """A crash must neither count as an answer nor end the run; a fork is refused, so it crashes."""
    with pytest.raises(ProcessLostError, match=why):
        sandbox.ask(action)
    assert sandbox.pid is None
    assert sandbox.ask("still there") == "still there"


def test_a_request_does_not_pay_for_those_before_it(sandbox: Sandbox) -> None:
    """Memory that earlier requests left behind would make the outcome depend on the order."""
    assert sandbox.ask("anything") == "anything"
    assert sandbox.ask("once only") == "fresh"


def test_what_a_sandboxed_process_started_ends_with_it() -> None:
    """A grandchild could go on computing, and keep the pipe open so that nobody notices the end."""
    sandbox = Sandbox("tests.support.sandboxed_worker", "with child", 60.0, 300)
    child = sandbox.ask("child")
    with pytest.raises(ProcessLostError, match="exit code 3"):
        sandbox.ask("exit")
    assert ends(child)


@pytest.mark.parametrize("last", ["pid", "hang"])
def test_a_sandboxed_process_ends_with_its_parent(
    last: str, started: list[subprocess.Popen[str]]
) -> None:
    """A parent that is killed cannot clean up: busy processes would fill the machine."""
    code = "import time; from pipeline.verifiers.sandbox.sandbox import Sandbox\n"
    code += "sandbox = Sandbox('tests.support.sandboxed_worker', '', 600.0, 300)\n"
    code += f"print(sandbox.ask('pid'), flush=True); sandbox.ask({last!r}); time.sleep(600)"
    env: dict[str, Any] = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,
    )
    started.append(parent)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    assert ends(pid)


def test_a_fork_starts_a_process_of_its_own(sandbox: Sandbox) -> None:
    """Two processes that read one pipe get each other's answers."""
    pid = sandbox.ask("pid")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, str(sandbox.ask("pid")).encode())
        sandbox.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reading, 20)) != pid
    assert sandbox.ask("pid") == pid


def test_what_cannot_start_says_why() -> None:
    """A missing library would make every answer unknown."""
    with pytest.raises(PipelineError, match="absent: does not start: no such library"):
        Sandbox("tests.support.sandboxed_worker", "absent", 60.0, 300).ask("pid")
    with pytest.raises(PipelineError, match="ended with exit code 1"):
        Sandbox("tests.no_such_module", "", 60.0, 300).ask("pid")


TRIES = {
    "socket": "import socket; socket.socket()",
    "fork": "import os; os.fork()",
    "exec": "import os; os.execv('/bin/true', ['true'])",
    "kill": "import os; os.kill(os.getppid(), 0)",
    "write": "open(PATH, 'a')",
    "append": "import os; os.open(PATH, os.O_WRONLY)",
    "remove": "import os; os.remove(PATH)",
    "rename": "import os; os.rename(PATH, PATH + '2')",
    "mkdir": "import os; os.mkdir(PATH + '2')",
    "chmod": "import os; os.chmod(PATH, 0)",
    "truncate": "import os; os.truncate(PATH, 0)",
}


@pytest.mark.parametrize("action", TRIES)
def test_calls_are_refused_for_good(action: str, tmp_path: Path) -> None:
    """Each of these calls is a way out of the sandbox."""
    path = tmp_path / "precious"
    path.write_text("text")
    code = f"PATH = {str(path)!r}\nfrom pipeline.verifiers.sandbox import confinement\n"
    code += "assert confinement.forbid_system_calls(allow_writing=False)\n"
    code += f"try:\n    {TRIES[action]}\nexcept PermissionError:\n    print('refused')\n"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True
        ).stdout
        == "refused\n"
    )
    assert path.read_text() == "text"


def test_the_system_call_filter_is_complete() -> None:
    """With a jump past the end, or a call without its number, the kernel refuses the filter.

    Or it lets the wrong call through.
    """
    for writing in (True, False):
        lines = confinement._instructions(writing)
        assert all(len(line) == 8 for line in lines)
        assert all(
            place + 1 + max(line[2:4]) < len(lines)
            for place, line in enumerate(lines)
            if line[0] & 7 == 5
        )
