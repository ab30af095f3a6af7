"""Print the package's log messages: facts on standard output, warnings on standard error."""

import logging
import re
import sys

from pipeline.execution.redaction import redacted

# Control characters except tab and line feed, which a terminal obeys; what Unicode gives the
# property Bidi_Control, which can show text in another order; and separators of lines.
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return the text with control characters as JSON escapes.

    The escapes keep a line of JSON the same value.
    """
    return OBEYED.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


class _Console(logging.Handler):
    """Writes each message as a plain line and flushes it, so that a pipe gets the line at once.

    The streams are looked up at each message, since tests and engines replace them. Errors of a
    stream are raised, not hidden: the command line ends quietly when its reader has gone.
    """

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stdout if record.levelno < logging.WARNING else sys.stderr
        stream.write(printable(redacted(self.format(record))) + "\n")
        stream.flush()


def configure() -> None:
    """Send the package's messages to the console. Every process that prints calls this once."""
    logger = logging.getLogger("pipeline")
    logger.handlers = [_Console()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
