"""A small server on loopback that answers as vLLM does."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

K = 3
IDS = [70, 71, 72]  # of every reply
Reply = tuple[int, Any, dict[str, str]]  # status, body, headers


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        """Answer 200 if the server counts as up, else 503."""
        self.send_response(200 if self.server.is_up else 503)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = self.server.reply_to(body)
        if reply is None:
            self.close_connection = True
            return
        status, content, headers = reply
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Answers with `reply(body, times)`, where `times` counts how often the prompt has come.

    A reply of None closes the connection.
    """

    request_queue_size = 512

    def __init__(self, reply: Callable[[Any, int], Reply | None], port: int = 0):
        super().__init__(("127.0.0.1", port), Handler)
        self.reply, self.lock = reply, threading.Lock()
        self.seen: Counter[int] = Counter()
        self.times: list[float] = []
        self.bodies: list[Any] = []
        self.in_flight = self.most_in_flight = 0
        self.is_up = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that hang up: they are part of the tests."""

    def reply_to(self, body: Any) -> Reply | None:
        number = body["prompt"][0] if "prompt" in body else -1
        with self.lock:
            self.times.append(time.monotonic())
            self.bodies.append(body)
            self.seen[number] += 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            times = self.seen[number]
        reply = self.reply(body, times)
        with self.lock:
            self.in_flight -= 1
        return reply


@contextmanager
def serving(reply: Callable[[Any, int], Reply | None], port: int = 0) -> Iterator[Server]:
    server = Server(reply, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def choice(**changes: Any) -> dict[str, Any]:
    tops = [{f"token_id:{i}": -0.5, "token_id:9": -2.0, "token_id:8": -1.5} for i in IDS]
    logprobs = {"token_logprobs": [-0.5] * 3, "top_logprobs": tops}
    return {
        "text": "abc",
        "finish_reason": "stop",
        "token_ids": IDS,
        "logprobs": logprobs,
        **changes,
    }


def good(body: Any = None, times: int = 1, **changes: Any) -> Reply:
    return 200, {"choices": [choice(**changes)], "usage": None}, {}


def row(*entries: tuple[int, float]) -> dict[str, Any]:
    """Return one position of prompt_logprobs."""
    return {
        str(token): {"logprob": value, "rank": rank, "decoded_token": "x"}
        for rank, (token, value) in enumerate(entries, 1)
    }
