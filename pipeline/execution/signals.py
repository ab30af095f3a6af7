"""Ctrl-C and SIGTERM: how a process ends when it gets one, and passes it to its child process."""

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from pipeline.errors import DONE, DONE_WITH_ERRORS, Stopped

DRAIN_SECONDS = 3.0  # how long requests in flight may take to finish
HANG_SECONDS = 4.5  # then interrupt an engine that does not return at all
# signals closer together count as one: the terminal sends Ctrl-C, and pipeline run passes it on too
REPEAT_SECONDS = 1.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)

Handler = Callable[[int, FrameType | None], None]


def listen() -> list[int]:
    """Raise Stopped in the main thread at each signal. Return a list of the signals to come.

    An engine that dies of the same signal may raise another error. If the list is not empty, that
    error came from the signal.
    """
    received: list[int] = []
    last = 0.0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        received.append(number)
        if last - before >= REPEAT_SECONDS:
            raise Stopped(number)

    for number in SIGNALS:
        signal.signal(number, on_signal)
    return received


def ignore() -> None:
    """Ignore SIGINT and SIGTERM from now on: they must not interrupt the end of the process."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def handled(handler: Handler, numbers: Sequence[int] = SIGNALS) -> Iterator[None]:
    """Call `handler` for these signals inside the `with` block, and the former ones after it."""
    before: list[Any] = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, former in zip(numbers, before, strict=True):
            signal.signal(number, former)


def run_child(command: list[str]) -> int:
    """Run a command to its end and return its exit code. It gets every signal that comes here.

    Raises Stopped if one came and the exit code does not say so: the command had just finished,
    or had not started yet.
    """
    received: list[int] = []
    running: list[subprocess.Popen[bytes]] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for process in running:
            process.send_signal(number)

    with handled(on_signal):
        running.append(process := subprocess.Popen(command))
        for number in received:  # came while the process was being started
            process.send_signal(number)
        code = process.wait()
    if received and code in (DONE, DONE_WITH_ERRORS, *(-number for number in SIGNALS)):
        raise Stopped(received[0])
    return code


@contextmanager
def deferred() -> Iterator[list[int]]:
    """Collect signals inside the `with` block, so that the work in hand can be saved first.

    A second signal raises Stopped at once. Only the main thread can get them.
    """
    received: list[int] = []
    last = 0.0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if received and last - before >= REPEAT_SECONDS:
            raise Stopped(number)
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    with handled(on_signal):
        yield received


@dataclass
class Stopping:
    """Whether a signal has come, for a loop over a model's answers.

    The loop then asks nothing new and gives requests in flight DRAIN_SECONDS to arrive. A second
    signal ends it at once.
    """

    signal: int = 0
    since: float = 0.0

    @property
    def overdue(self) -> bool:
        """True once the time for requests in flight is over."""
        return bool(self.signal) and time.monotonic() - self.since > DRAIN_SECONDS

    @classmethod
    @contextmanager
    def watched(cls) -> Iterator["Stopping"]:
        """Watch for signals inside the `with` block. Only the main thread can get them."""
        state = cls()
        if threading.current_thread() is not threading.main_thread():
            yield state
            return

        def on_signal(number: int, frame: FrameType | None) -> None:
            if not state.signal:
                state.signal, state.since = number, time.monotonic()
                signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
            elif number == signal.SIGALRM or time.monotonic() - state.since >= REPEAT_SECONDS:
                raise KeyboardInterrupt

        with handled(on_signal, (*SIGNALS, signal.SIGALRM)):
            try:
                yield state
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
