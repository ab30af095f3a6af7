"""A process that misbehaves on request: `python -m tests.support.sandboxed_worker PARENT ARGUMENT`.

A request names what to do. ARGUMENT "family" starts a second process first, which outlives this one
unless it is killed.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from pipeline.verifiers.sandbox.worker import Handler, serve


def load(argument: str, words: int) -> Handler:
    if argument == "absent":
        raise ImportError("no such library")
    relative = os.fork() if argument == "family" else 0
    if argument == "family" and relative == 0:
        time.sleep(600)

    def hang() -> NoReturn:
        while True:
            pass

    def deaf() -> NoReturn:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        hang()

    def garbage() -> None:
        os.write(words, b"\xff\xff\xff\xff{not a frame")
        time.sleep(600)

    def dribble() -> NoReturn:
        os.write(words, b"\0\1\0\0")
        while True:
            os.write(words, b" ")
            time.sleep(0.005)

    def eat() -> None:
        eaten = []
        while True:
            eaten.append(bytes(range(256)) * 40_000)

    doings: dict[str, Callable[[], Any]] = {
        "pid": os.getpid,
        "relative": lambda: relative,
        "hang": hang,
        "deaf": deaf,
        "crash": lambda: ctypes.string_at(0),
        "exit": lambda: os._exit(3),
        "raise": lambda: 1 / 0,
        "eat": eat,
        "fork": os.fork,
        "garbage": garbage,
        "dribble": dribble,
        "print": lambda: print("a library's words", flush=True),
    }
    fragile = {"asked": 0}

    def judge(request: Any) -> Any:
        fragile["asked"] += 1
        if request == "once only":  # as one that has grown too large
            return "fresh" if fragile["asked"] == 1 else os._exit(4)
        return doings[request]() if str(request) in doings else request

    return judge


if __name__ == "__main__":
    words = os.dup(1)
    serve(int(sys.argv[1]), lambda: load(sys.argv[2], words))
