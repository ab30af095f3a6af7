"""Turn errors and signals into one line for the user and an exit code."""

import errno
import os
import signal
import sys

from pipeline.cli.output import echo
from pipeline.errors import DONE, FAILED, STOPPED
from pipeline.execution import signals
from pipeline.execution.redaction import redacted

DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EFBIG: "it would be larger than allowed",
    errno.EROFS: "the folder is read-only",
    errno.EACCES: "permission is denied",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.EEXIST: "a file stands where a folder is needed",
    errno.EISDIR: "it is a folder",
    errno.EDQUOT: "the quota is used up",
    errno.ENAMETOOLONG: "its name is too long",
    errno.ELOOP: "its links lead in a circle",
    errno.EPERM: "that is not permitted",
    errno.EINVAL: "this kind of file cannot hold data",
    errno.EIO: "it cannot be read or written",
}


NO_READER = 128 + signal.SIGPIPE  # as the shell says of a program that SIGPIPE ended


def print_stopped(number: int) -> int:
    """Print that a signal ended the command. Return the exit code."""
    signals.ignore()
    echo("\nstopped; what is finished is kept, and the same command continues from here", err=True)
    return STOPPED + number


def print_error(message: str) -> int:
    """Print an error as one line. Return the exit code."""
    echo(redacted(f"error: {message}"), err=True)
    return FAILED


def exit_process(code: int) -> None:
    """Exit with this code; skip Python's own shutdown if this process has loaded vLLM.

    vLLM can crash during that shutdown. All results are on disk by then, but the crash would change
    the exit code.
    """
    code = max(code, _flush())
    if "vllm" in sys.modules:
        os._exit(code)
    sys.exit(code)


def _flush() -> int:
    """Write what is still buffered. Return an exit code if that fails, and drop the rest."""
    code = DONE
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            # the interpreter flushes again when it ends, and would print a traceback
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            code = max(code, NO_READER if isinstance(error, BrokenPipeError) else FAILED)
    return code
