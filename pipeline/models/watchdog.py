"""The program that kills an engine's processes when the process that started them is killed.

If the process that starts the engine ("the parent") is killed, the engine would continue and keep
its GPU memory. So the parent runs this program with its own process id as the argument, and holds
the write end of its stdin. When the parent dies, stdin closes: the signal to kill the engine.
"""

import os
import select
import subprocess
import sys
from contextlib import suppress

import psutil

POLL_SECONDS = 1.0


class Watchdog:
    """Starts a watchdog that kills this process's children if this process dies."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.models.watchdog", str(os.getpid())],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._pipe = self._process.stdin
        self.pid = self._process.pid
        # a forked engine that holds the pipe open would hide this process's death from the watchdog
        os.register_at_fork(after_in_child=self._pipe.close)

    def engine_is_up(self) -> None:
        """Tell the watchdog that the engine has started all its processes."""
        self._pipe.write(b"u")
        self._pipe.flush()

    def stop(self) -> None:
        """End the watchdog; it kills nothing."""
        self._process.kill()
        self._process.communicate()


def watch(parent_pid: int) -> None:
    """Wait until the parent is gone, then kill the processes that it had started.

    List these processes every second until the parent reports that the engine is up.
    """
    parent = psutil.Process(parent_pid)
    processes: list[psutil.Process] = []
    is_up = False
    while True:
        if not is_up:
            with suppress(psutil.NoSuchProcess):
                processes = _started_by(parent)
        readable, _, _ = select.select([0], [], [], None if is_up else POLL_SECONDS)
        if readable:
            if not os.read(0, 1):
                break
            processes = _started_by(parent)
            is_up = True
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _started_by(parent: psutil.Process) -> list[psutil.Process]:
    return [child for child in parent.children(recursive=True) if child.pid != os.getpid()]


if __name__ == "__main__":
    watch(int(sys.argv[1]))
