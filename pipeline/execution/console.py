"""Print the package's log messages: facts on standard output, warnings on standard error."""

import logging
import sys


class _Console(logging.Handler):
    """Writes each message as a plain line and flushes it, so that a pipe gets the line at once.

    The streams are looked up at each message, since tests and engines replace them. Errors of a
    stream are raised, not hidden: the command line ends quietly when its reader has gone.
    """

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stdout if record.levelno < logging.WARNING else sys.stderr
        stream.write(self.format(record) + "\n")
        stream.flush()


def configure() -> None:
    """Send the package's messages to the console. Every process that prints calls this once."""
    logger = logging.getLogger("pipeline")
    logger.handlers = [_Console()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
