"""File locks that other processes and machines respect."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeline.errors import PipelineError

LOCK_POLL_SECONDS = 0.1


class Lock:
    """A POSIX record lock on a file, held by one process alone or shared by many.

    The system releases the lock when its process ends, also on a shared folder if the file system
    supports locks. A forked child does not hold the lock. Use one Lock per file in a process:
    closing a second one would release the lock.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file: IO[str] | None = None

    def take(self, shared: bool = False) -> bool:
        """Take the lock if it is free. Return True if this process holds it now.

        With `shared`, a lock that this process holds alone becomes a shared one.
        """
        file = self._file or self.path.open("a+")
        try:
            fcntl.lockf(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if file is not self._file:
                file.close()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise PipelineError(
                f"{self.path}: the file system keeps no locks ({error.strerror}); "
                "use another run_dir"
            ) from None
        self._file = file
        if not shared:
            file.truncate(0)
            file.write(f"{os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        return True

    def release(self) -> None:
        """Release the lock if it is held."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def holder(self) -> str:
        """The process that last took the lock alone, as "PID on HOST"; "?" if not known."""
        try:
            return self.path.read_text().strip() or "?"
        except OSError:
            return "?"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for a lock and hold it alone in the `with` block, which must be short."""
    lock = Lock(path)
    while not lock.take():
        time.sleep(LOCK_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()
