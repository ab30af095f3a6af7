"""A report over HTTP, on this machine alone."""

import functools
import logging
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"


class Handler(SimpleHTTPRequestHandler):
    """The files of one folder, to read. No lists of folders, nothing outside, and no page of another site can ask by a name of its own."""

    def send_head(self) -> Any:
        host = (self.headers.get("Host") or "").rpartition(":")[0]
        inside = (
            Path(self.translate_path(self.path))
            .resolve()
            .is_relative_to(Path(self.directory).resolve())
        )
        if host not in (LOOPBACK, "localhost") or not inside:
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def list_directory(self, path: Any) -> None:
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, *args: Any) -> None:
        """Nobody reads a line a request."""


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Listens already; 0 is any free port. Raises PipelineError if the port is taken."""
    try:
        return ThreadingHTTPServer(
            (LOOPBACK, port), functools.partial(Handler, directory=str(folder))
        )
    except OSError as error:
        raise PipelineError(
            f"report: port {port} cannot be used ({error.strerror}); give another with --port"
        ) from None


def serve(folder: Path, port: int) -> None:
    """Serve until Ctrl-C."""
    with server(folder, port) as listening:
        log.info(f"http://{LOOPBACK}:{listening.server_address[1]}/ (ends with Ctrl-C)")
        listening.serve_forever()
