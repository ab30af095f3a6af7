"""The process inside the sandbox: `python -m pipeline.verifiers.sandbox.worker PARENT VERIFIER`.

PARENT is the id of the process that started it, VERIFIER is math or json.
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from pipeline.verifiers.sandbox import confinement

STACK = 512 << 20  # bytes of address space, enough for RECURSION_LIMIT
# high, because a library may catch RecursionError and report two answers as not equal
RECURSION_LIMIT = 20_000

Handler = Callable[[Any], Any]


def serve(parent: int, load: Callable[[], Handler]) -> None:
    """Answer requests on stdin until it is closed.

    `load` imports what the handler needs and returns it. After that the process can open no file
    for writing and no socket, and start no process. The first frame that it sends is null if all is
    ready, or else a text that says why not. What libraries print is discarded.
    """
    confinement.end_with_parent(parent)
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        handler = load()
    except ImportError as error:
        write_frame(replies, str(error))
        return
    confinement.drop_capabilities()
    confinement.forbid_system_calls(allow_writing=False)
    write_frame(replies, None)
    sys.setrecursionlimit(RECURSION_LIMIT)
    threading.stack_size(STACK)
    thread = threading.Thread(target=_answer, args=(handler, replies), daemon=True)
    thread.start()
    thread.join()
    sys.exit(1)


def _answer(handler: Handler, replies: BinaryIO) -> None:
    """Answer until the stream ends, or a request raises an error."""
    while request := read_frame(sys.stdin.buffer):
        number, question = request
        write_frame(replies, [number, handler(question)])


def read_frame(stream: BinaryIO) -> Any:
    """Return the next frame's JSON, or None at the end of the stream."""
    size = stream.read(4)
    return json.loads(stream.read(int.from_bytes(size, "big"))) if len(size) == 4 else None


def write_frame(stream: BinaryIO, message: Any) -> None:
    """Write a frame: the length of the message's JSON, then the JSON."""
    body = json.dumps(message).encode()
    stream.write(len(body).to_bytes(4, "big") + body)
    stream.flush()


def _load(verifier: str) -> Handler:
    if verifier == "math":
        from pipeline.verifiers import math_answers

        return math_answers.compare
    from pipeline.verifiers import json_answers

    return json_answers.compare


if __name__ == "__main__":
    serve(int(sys.argv[1]), lambda: _load(sys.argv[2]))
