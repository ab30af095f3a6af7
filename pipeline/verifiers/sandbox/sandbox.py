"""A process that may hang, blow up, die or talk nonsense, and the run goes on.

Its words are length-prefixed JSON. The deadline, the memory and the kill are the parent's, since what hangs in C does not hear a signal
handler, a thread or a time-out of its own.
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

from pipeline.errors import PipelineError

READY_SECONDS = 120.0  # for imports, on a machine that has much else to do
SLICE_SECONDS = 0.02  # between two looks at memory and life
LONGEST_REPLY = 1 << 20  # bytes
PAGE = os.sysconf("SC_PAGE_SIZE")


class UnknownError(Exception):
    """Whether an answer is right could not be found out. The text says why."""


class ProcessLostError(UnknownError):
    """The process ended, took too much memory or talked nonsense: which may be the fault of what it was asked before."""


class SandboxedProcess:
    """One process, in a session of its own, from its start to the end of its whole process group.

    It reads and writes frames: four bytes of length, big-endian, and as much JSON. `memory_mib` bounds what is resident of it.
    """

    def __init__(
        self,
        command: Sequence[str],
        memory_mib: int,
        env: Mapping[str, str],
        cwd: str | None = None,
    ):
        self._most = memory_mib << 20
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
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: Any, until: float) -> None:
        """Raises UnknownError at `until` (of time.monotonic), ProcessLostError if the process is lost."""
        body = json.dumps(message).encode()
        left = memoryview(len(body).to_bytes(4, "big") + body)
        while left:
            self._wait(self._to, select.POLLOUT, until)
            try:
                left = left[os.write(self._to, left) :]
            except BrokenPipeError:
                raise ProcessLostError(self._ended()) from None

    def receive(self, until: float) -> Any:
        """The next frame. Raises as `send` does."""
        size = int.from_bytes(self._read(4, until), "big")
        if size > LONGEST_REPLY:
            raise ProcessLostError("the check talked nonsense")
        try:
            return json.loads(self._read(size, until))
        except ValueError:
            raise ProcessLostError("the check talked nonsense") from None

    def end(self) -> None:
        """Kill what is left of it and of its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(
                self.pid, signal.SIGKILL
            )  # before wait(), while the number cannot belong to anyone else
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _read(self, size: int, until: float) -> bytes:
        found = b""
        while len(found) < size:
            self._wait(self._from, select.POLLIN, until)
            part = os.read(self._from, size - len(found))
            if not part:
                raise ProcessLostError(self._ended())
            found += part
        return found

    def _wait(self, pipe: int, event: int, until: float) -> None:
        poll = select.poll()
        poll.register(pipe, event)
        ready = False
        while not ready:
            ready = bool(poll.poll(1000 * SLICE_SECONDS))
            if time.monotonic() > until:  # whatever is there: a byte now and then is no answer
                raise UnknownError("took too long")
            # another process of its group may hold the pipe open
            if not ready and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                raise ProcessLostError(self._ended())
            if not ready and self._resident() > self._most:
                raise ProcessLostError(f"took more than {self._most >> 20} MiB")

    def _resident(self) -> int:
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * PAGE
        except (OSError, IndexError):
            return 0  # it is ending

    def _ended(self) -> str:
        until = time.monotonic() + 1.0
        while not (found := os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)):
            if time.monotonic() > until:
                return "the check closed its pipe"
            time.sleep(0.001)
        how = "exit code" if found.si_code == os.CLD_EXITED else "signal"
        return f"the check ended with {how} {found.si_status}"


class Sandbox:
    """Asks one process many times: `python -m module PARENT ARGUMENT`, which calls `child.serve`.

    It starts with the first request, ends after one that goes wrong, and starts again with the next. A request on which a process died that
    had answered others is asked once more, in a new one. The process lives no longer than the thread that started it.
    """

    def __init__(self, module: str, argument: str, timeout_s: float, memory_mib: int):
        self._what, self._timeout_s, self._memory_mib = (module, argument), timeout_s, memory_mib
        self._process: SandboxedProcess | None = None
        self._owner = os.getpid()
        self._number = 0
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Of the process that waits for the next request, if there is one."""
        return self._process.pid if self._process else None

    def ask(self, request: Any) -> Any:
        """JSON to JSON. Raises UnknownError after `timeout_s` and where the process is lost, PipelineError if it cannot be started."""
        with self._lock:
            if self._owner != os.getpid():  # a fork: the process is the other one's
                self._process, self._owner = None, os.getpid()
            used = self._process is not None
            began = time.monotonic()
            try:
                return self._once(request, self._timeout_s)
            except ProcessLostError:
                left = self._timeout_s - (time.monotonic() - began)
                if not used or left <= 0:
                    raise
                return self._once(request, left)

    def close(self) -> None:
        """End the process, if there is one. The next request starts another."""
        if self._process and self._owner == os.getpid():
            self._process.end()
        self._process = None

    def _once(self, request: Any, seconds: float) -> Any:
        process = self._process = self._process or self._started()
        self._number += 1
        until = time.monotonic() + seconds
        answered = False
        try:
            process.send([self._number, request], until)
            reply = process.receive(until)
            if not isinstance(reply, list) or len(reply) != 2 or reply[0] != self._number:
                raise ProcessLostError("the check talked nonsense")
            answered = True
            return reply[1]
        finally:
            if not answered:
                self.close()

    def _started(self) -> SandboxedProcess:
        module, argument = self._what
        env = {
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "PYTHONHASHSEED": "0",  # some of sympy's results follow the order of sets
            "OMP_NUM_THREADS": "1",
        }
        process = SandboxedProcess(
            [sys.executable, "-m", module, str(os.getpid()), argument], self._memory_mib, env
        )
        try:
            ready = process.receive(time.monotonic() + READY_SECONDS)
        except UnknownError as error:
            ready = str(error)
        if ready is not None:
            process.end()
            raise PipelineError(
                f"{module} {argument}: does not start: {ready}; run `{sys.executable} -m {module} {os.getpid()} {argument}`"
            )
        return process
