"""Ctrl-C and SIGTERM: how a process comes to an end when it is told to, and tells the one that it has started."""

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from pipeline.errors import DONE, DONE_WITH_ERRORS, Stopped

DRAIN_SECONDS = 3.0  # for what is in flight
HANG_SECONDS = 4.5  # for an engine that does not come back at all
REPEAT_SECONDS = 1.0  # signals nearer than this are one: a terminal's Ctrl-C reaches a stage directly, and from pipeline run
TOLD = (signal.SIGINT, signal.SIGTERM)


def listen() -> list[int]:
    """From now on a signal raises Stopped wherever the main thread is. Returns a list that will hold what has come.

    An engine that dies of the same signal can turn it into an error of its own; the list tells the two apart.
    """
    received: list[int] = []
    last = 0.0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        received.append(number)
        if last - before >= REPEAT_SECONDS:
            raise Stopped(number)

    for number in TOLD:
        signal.signal(number, on_signal)
    return received


def be_deaf() -> None:
    """Nothing may come between now and the end of the process."""
    for number in TOLD:
        signal.signal(number, signal.SIG_IGN)


def run_child(command: list[str]) -> int:
    """Run a command to its end and return its exit code. It is told of signals, whoever else has told it.

    Raises Stopped if one came and the command does not itself say so: it was done already, or not up yet.
    """
    received: list[int] = []
    running: list[subprocess.Popen[bytes]] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for process in running:
            process.send_signal(number)

    before: list[Any] = [signal.signal(number, on_signal) for number in TOLD]
    try:
        running.append(process := subprocess.Popen(command))
        for number in received:  # while it was being started
            process.send_signal(number)
        code = process.wait()
    finally:
        for number, handler in zip(TOLD, before, strict=True):
            signal.signal(number, handler)
    if received and code in (DONE, DONE_WITH_ERRORS, *(-number for number in TOLD)):
        raise Stopped(received[0])
    return code


@dataclass
class Stopping:
    """What a loop over a model's answers does instead: nothing new is asked, what is in flight has a moment to come in. A second signal
    ends it at once."""

    signal: int = 0
    since: float = 0.0

    @property
    def overdue(self) -> bool:
        return bool(self.signal) and time.monotonic() - self.since > DRAIN_SECONDS

    @classmethod
    @contextmanager
    def watched(cls) -> Iterator["Stopping"]:
        state = cls()
        if (
            threading.current_thread() is not threading.main_thread()
        ):  # only that one is told of signals
            yield state
            return

        def on_signal(number: int, frame: FrameType | None) -> None:
            if not state.signal:
                state.signal, state.since = number, time.monotonic()
                signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
            elif number == signal.SIGALRM or time.monotonic() - state.since >= REPEAT_SECONDS:
                raise KeyboardInterrupt

        numbers: list[int] = [*TOLD, signal.SIGALRM]
        before: list[Any] = [signal.signal(number, on_signal) for number in numbers]
        try:
            yield state
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
