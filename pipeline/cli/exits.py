"""Turn errors and signals into one line for the user and an exit code."""

import errno
import os
import sys

import click

from pipeline.errors import FAILED, STOPPED
from pipeline.execution import signals

DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EFBIG: "it would be larger than allowed",
    errno.EROFS: "the folder is read-only",
    errno.EACCES: "permission is denied",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.EEXIST: "a file stands where a folder is needed",
    errno.EISDIR: "it is a folder",
    errno.EDQUOT: "the quota is used up",
}


def say_stopped(number: int) -> int:
    signals.ignore()
    click.echo(
        "\nstopped; what is finished is kept, and the same command continues from here", err=True
    )
    return STOPPED + number


def complain(message: str) -> int:
    click.echo(f"error: {message}", err=True)
    return FAILED


def leave(code: int) -> None:
    """Exit. An in-process engine can abort the interpreter on its way out, after all is on disk; the exit code must not depend on it."""
    sys.stdout.flush()
    sys.stderr.flush()
    if "vllm" in sys.modules:
        os._exit(code)
    sys.exit(code)
