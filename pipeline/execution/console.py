"""Print the package's log messages: facts on standard output, warnings on standard error."""

import io
import logging
import os
import re
import sys

from pipeline.execution.redaction import redacted

# Control characters except tab and line feed, which a terminal obeys; what Unicode gives the
# property Bidi_Control, which can show text in another order; and separators of lines.
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return the text with control characters as JSON escapes.

    A line of JSON still has the same value afterwards.
    """
    return OBEYED.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


class _Console(logging.Handler):
    """Writes each message as a plain line and flushes it, so that a pipe gets the line at once.

    The streams are looked up at each message, since tests and engines replace them. Errors of a
    stream are raised: the command line handles the one that comes when its reader has closed it.
    """

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stdout if record.levelno < logging.WARNING else sys.stderr
        stream.write(printable(redacted(self.format(record))) + "\n")
        stream.flush()


def configure() -> None:
    """Send the package's messages to the console. Every process that prints calls this once."""
    _open_standard_streams()
    logger = logging.getLogger("pipeline")
    logger.handlers = [_Console()]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _open_standard_streams() -> None:
    """Have three usable standard streams, whatever the shell left of them.

    A closed one becomes /dev/null: else the next file that is opened gets its number, and what a
    library prints lands in that file. A character that a stream cannot encode is written as an
    escape.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
