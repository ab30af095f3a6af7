"""The other side of the sandbox: `python -m pipeline.verifiers.sandbox.worker PARENT VERIFIER`."""

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from pipeline.verifiers.sandbox import confinement

STACK = 512 << 20  # bytes of address space, for RECURSION
RECURSION = 20_000  # a library's "recursion too deep" would be read as "not equal"

Judge = Callable[[Any], Any]


def serve(parent: int, load: Callable[[], Judge]) -> None:
    """Answer requests on stdin until it is closed. What `load` imports is imported first; then no file, socket or process can be had.

    The first frame says that all is ready (null), or why not. A library's prints go nowhere.
    """
    confinement.end_with_parent(parent)
    replies = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        judge = load()
    except ImportError as error:
        write(replies, str(error))
        return
    confinement.forbid_system_calls(allow_writing=False)
    write(replies, None)
    sys.setrecursionlimit(RECURSION)
    threading.stack_size(STACK)
    thread = threading.Thread(target=_answer, args=(judge, replies), daemon=True)
    thread.start()
    thread.join()
    sys.exit(1)


def _answer(judge: Judge, replies: BinaryIO) -> None:
    # ends with the stream, or with an error
    while request := read(sys.stdin.buffer):
        number, question = request
        write(replies, [number, judge(question)])


def read(stream: BinaryIO) -> Any:
    """The next frame's JSON; None at the end."""
    size = stream.read(4)
    return json.loads(stream.read(int.from_bytes(size, "big"))) if len(size) == 4 else None


def write(stream: BinaryIO, message: Any) -> None:
    body = json.dumps(message).encode()
    stream.write(len(body).to_bytes(4, "big") + body)
    stream.flush()


def _load(verifier: str) -> Judge:
    if verifier == "math":
        from pipeline.verifiers import math_answers

        return math_answers.judge
    from pipeline.verifiers import json_answers

    return json_answers.judge


if __name__ == "__main__":
    serve(int(sys.argv[1]), lambda: _load(sys.argv[2]))
