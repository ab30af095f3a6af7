"""The process inside the sandbox: `python -m pipeline.verifiers.sandbox.worker PARENT VERIFIER`."""

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from pipeline.verifiers.sandbox import confinement

STACK = 512 << 20  # bytes of address space, for RECURSION
RECURSION = 20_000  # a library would read "recursion too deep" as "not equal"

Handler = Callable[[Any], Any]


def serve(parent: int, load: Callable[[], Handler]) -> None:
    """Answer requests on stdin until it is closed.

    `load` imports what the handler needs; after it, the process can get no file, socket or process.
    The first frame is null once all is ready, or says why it is not. What libraries print is lost.
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
    sys.setrecursionlimit(RECURSION)
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
    """Return the next frame's JSON, or None at the end."""
    size = stream.read(4)
    return json.loads(stream.read(int.from_bytes(size, "big"))) if len(size) == 4 else None


def write_frame(stream: BinaryIO, message: Any) -> None:
    """Write a message as JSON, with its length before it."""
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
