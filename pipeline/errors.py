"""Every error that the package raises on purpose, and the exit codes of the command line.

    Exception
    ├── PipelineError          a user error, printed as one line; exit code 1
    │   ├── EngineError        the model died; a new one may continue
    │   └── NoAnswerError      a sample has no answer, and its arm trains on answers
    ├── Diverged               training cannot continue; caught by training/fit
    └── UnknownError           whether an answer is right could not be determined
        └── ProcessLostError   the process that checked it was lost
    BaseException
    └── Stopped                Ctrl-C or SIGTERM; exit code 130 or 143

Raise a new kind only where some caller treats it differently from its parent.
"""

DONE = 0
FAILED = 1
GATE = 2  # a student misses evaluate.gate; click uses 2 for a mistake on the command line
DONE_WITH_ERRORS = 3
STOPPED = 128  # plus the number of the signal


class PipelineError(Exception):
    """A user error. The message reads "where: what is wrong, got what; what to do"."""


class EngineError(PipelineError):
    """The model cannot continue, but a new one in its place may."""


class NoAnswerError(PipelineError):
    """A sample without a readable answer, in a form that trains on the answer."""


class Diverged(Exception):  # noqa: N818 - not a user error; training/fit turns it into one with advice
    """Training cannot continue from here."""

    def __init__(self, step: int, what: str):
        super().__init__(f"step {step}: {what}")
        self.step, self.what = step, what


class UnknownError(Exception):
    """Whether an answer is right could not be determined. The text says why."""


class ProcessLostError(UnknownError):
    """The process ended, took too much memory or sent nonsense.

    An earlier request may have damaged it.
    """


class Stopped(BaseException):
    """Ctrl-C or SIGTERM, after the requests in flight were made durable.

    Not an Exception, since libraries catch those.
    """

    def __init__(self, signal: int):
        super().__init__(signal)
        self.signal = signal
