"""Run checks in another process, which may hang, crash or use too much memory.

Messages are length-prefixed JSON. The parent enforces the time and memory limits and kills the
process. It must, because code stuck in a C call does not react to a signal handler or timer inside
its own process.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import PipelineError, ProcessLostError, UnknownError

READY_SECONDS = 120.0  # for imports, on a busy machine
POLL_SECONDS = 0.02  # between checks of memory use and of whether the process lives
LONGEST_REPLY = 1 << 20  # bytes
MOST_THREADS = 256
PAGE = os.sysconf("SC_PAGE_SIZE")
INVALID_REPLY = "the check sent an invalid reply"


class SandboxedProcess:
    """One process in a session of its own; `end` kills its whole process group.

    The process reads and writes frames: a big-endian length of four bytes, then that many bytes of
    JSON. `memory_mib` bounds its resident memory.
    """

    def __init__(
        self,
        command: Sequence[str],
        memory_mib: int,
        env: Mapping[str, str],
        cwd: str | None = None,
    ):
        self._memory_limit = memory_mib << 20
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=env,
            cwd=cwd,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        for pipe in (self._stdin, self._stdout):
            os.set_blocking(pipe.fileno(), False)

    @property
    def pid(self) -> int:
        """The id of the process, and of its group."""
        return self._process.pid

    def send(self, message: Any, deadline: float) -> None:
        """Write one frame.

        Raises UnknownError at `deadline` (a value of time.monotonic), or ProcessLostError if the
        process has exited or is killed for exceeding a limit.
        """
        body = json.dumps(message).encode()
        remaining = memoryview(len(body).to_bytes(4, "big") + body)
        pipe = self._stdin.fileno()
        while remaining:
            self._wait(pipe, select.POLLOUT, deadline)
            try:
                remaining = remaining[os.write(pipe, remaining) :]
            except BrokenPipeError:
                raise ProcessLostError(self._exit_reason()) from None

    def receive(self, deadline: float) -> Any:
        """Return the next frame's JSON. Raises as `send` does."""
        size = int.from_bytes(self._read(4, deadline), "big")
        if size > LONGEST_REPLY:
            raise ProcessLostError(INVALID_REPLY)
        try:
            return json.loads(self._read(size, deadline))
        except (ValueError, RecursionError):
            raise ProcessLostError(INVALID_REPLY) from None

    def end(self) -> None:
        """Kill the process and its group."""
        # kill before wait(): until then the pid cannot be reused by another process
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._stdin.close()
        self._stdout.close()

    def _read(self, size: int, deadline: float) -> bytes:
        pipe = self._stdout.fileno()
        content = b""
        while len(content) < size:
            self._wait(pipe, select.POLLIN, deadline)
            part = os.read(pipe, size - len(content))
            if not part:
                raise ProcessLostError(self._exit_reason())
            content += part
        return content

    def _wait(self, pipe: int, event: int, deadline: float) -> None:
        """Wait until the pipe is ready. Raises as `send` does."""
        poll = select.poll()
        poll.register(pipe, event)
        ready = False
        while not ready:
            ready = bool(poll.poll(1000 * POLL_SECONDS))
            # checked even when data is ready, or a process that sends one byte now and then would
            # never time out
            if time.monotonic() > deadline:
                raise UnknownError("took too long")
            # Another process of the group may hold the pipe open, so end-of-file may never come.
            # Ask whether the process has exited.
            if not ready and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                raise ProcessLostError(self._exit_reason())
            if not ready and self._resident() > self._memory_limit:
                raise ProcessLostError(f"took more than {self._memory_limit >> 20} MiB")
            if not ready and self._threads() > MOST_THREADS:
                raise ProcessLostError(f"started more than {MOST_THREADS} threads")

    def _resident(self) -> int:
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * PAGE
        except (OSError, IndexError):
            return 0  # the process is ending

    def _threads(self) -> int:
        try:
            return os.stat(f"/proc/{self.pid}/task").st_nlink - 2
        except OSError:
            return 0  # the process is ending

    def _exit_reason(self) -> str:
        deadline = time.monotonic() + 1.0
        flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
        while not (status := os.waitid(os.P_PID, self.pid, flags)):
            if time.monotonic() > deadline:
                return "the check closed its pipe"
            time.sleep(0.001)
        kind = "exit code" if status.si_code == os.CLD_EXITED else "signal"
        return f"the check ended with {kind} {status.si_status}"


class Sandbox:
    """Answers many requests with one process: `python -m module PARENT ARGUMENT`.

    The module calls `worker.serve`. PARENT is this process's id. The process starts with the first
    request, ends after a request that fails, and starts again with the next one. If a process that
    has already answered a request is lost, the request is tried once more in a new process, because
    an earlier request may have damaged the old one. The kernel kills the process when the thread
    that started it ends (PR_SET_PDEATHSIG).
    """

    def __init__(self, module: str, argument: str, timeout_s: float, memory_mib: int):
        self._module, self._argument = module, argument
        self._timeout_s, self._memory_mib = timeout_s, memory_mib
        self._process: SandboxedProcess | None = None
        self._owner = os.getpid()
        self._number = 0
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """The id of the running process; None if there is none."""
        return self._process.pid if self._process else None

    def ask(self, request: Any) -> Any:
        """Send a JSON request and return the JSON reply.

        Raises UnknownError after `timeout_s` or if the process is lost, and PipelineError if the
        process cannot be started.
        """
        with self._lock:
            if self._owner != os.getpid():  # after a fork, the process is still the parent's
                self._process, self._owner = None, os.getpid()
            is_used = self._process is not None
            started = time.monotonic()
            try:
                return self._try(request, self._timeout_s)
            except ProcessLostError:
                remaining = self._timeout_s - (time.monotonic() - started)
                if not is_used or remaining <= 0:
                    raise
                return self._try(request, remaining)

    def close(self) -> None:
        """End the process, if there is one. The next request starts a new one."""
        if self._process and self._owner == os.getpid():
            self._process.end()
        self._process = None

    def _try(self, request: Any, seconds: float) -> Any:
        process = self._process = self._process or self._start()
        self._number += 1
        deadline = time.monotonic() + seconds  # starting the process does not count
        answered = False
        try:
            process.send([self._number, request], deadline)
            reply = process.receive(deadline)
            if not isinstance(reply, list) or len(reply) != 2 or reply[0] != self._number:
                raise ProcessLostError(INVALID_REPLY)
            answered = True
            return reply[1]
        finally:
            if not answered:
                self.close()

    def _start(self) -> SandboxedProcess:
        command = [sys.executable, "-m", self._module, str(os.getpid()), self._argument]
        env = {
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "PYTHONHASHSEED": "0",  # some results of sympy depend on the order of sets
            "OMP_NUM_THREADS": "1",
        }
        process = SandboxedProcess(command, self._memory_mib, env)
        try:
            ready = process.receive(time.monotonic() + READY_SECONDS)
        except UnknownError as error:
            ready = str(error)
        if ready is not None:
            process.end()
            raise PipelineError(
                f"{self._module} {self._argument}: does not start: {ready}; "
                f"run `{' '.join(command)}` to see why"
            )
        return process
