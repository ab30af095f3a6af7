"""The errors that a user is meant to see, and what the exit code says."""

DONE, FAILED, GATE, DONE_WITH_ERRORS, STOPPED = (
    0,
    1,
    2,
    3,
    128,
)  # STOPPED plus the number of the signal; 2 is also click's


class PipelineError(Exception):
    """Something the user can put right. Printed as one line, exit code 1.

    The message reads "where: what is wrong, got what; what to do".
    """


class EngineError(PipelineError):
    """The model cannot go on, but a new one in its place may."""


class Stopped(BaseException):
    """Ctrl-C or SIGTERM, after what was in flight has been made durable. Exit code 128 and the signal's number.

    No Exception, since libraries catch those.
    """

    def __init__(self, signal: int):
        super().__init__(signal)
        self.signal = signal
