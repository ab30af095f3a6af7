"""A process that misbehaves on request: `python -m tests.support.sandboxed_worker PARENT ARGUMENT`.

A request names what to do. ARGUMENT "with child" starts a second process first, which outlives this
one unless it is killed.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from pipeline.verifiers.sandbox.worker import Handler, serve


def load(argument: str, output: int) -> Handler:
    if argument == "absent":
        raise ImportError("no such library")
    child = os.fork() if argument == "with child" else 0
    if argument == "with child" and child == 0:
        time.sleep(600)

    def hang() -> NoReturn:
        while True:
            pass

    def block_signals() -> NoReturn:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        hang()

    def garbage() -> None:
        os.write(output, b"\xff\xff\xff\xff{not a frame")
        time.sleep(600)

    def dribble() -> NoReturn:
        os.write(output, b"\0\1\0\0")
        while True:
            os.write(output, b" ")
            time.sleep(0.005)

    def eat() -> None:
        eaten = []
        while True:
            eaten.append(bytes(range(256)) * 40_000)

    actions: dict[str, Callable[[], Any]] = {
        "pid": os.getpid,
        "child": lambda: child,
        "hang": hang,
        "block signals": block_signals,
        "crash": lambda: ctypes.string_at(0),
        "exit": lambda: os._exit(3),
        "raise": lambda: 1 / 0,
        "eat": eat,
        "fork": os.fork,
        "garbage": garbage,
        "dribble": dribble,
        "print": lambda: print("a library's output", flush=True),
    }
    asked = 0

    def judge(request: Any) -> Any:
        nonlocal asked
        asked += 1
        if request == "once only":  # as a process that has grown too large
            return "fresh" if asked == 1 else os._exit(4)
        return actions[request]() if str(request) in actions else request

    return judge


if __name__ == "__main__":
    output = os.dup(1)
    serve(int(sys.argv[1]), lambda: load(sys.argv[2], output))
