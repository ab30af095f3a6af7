"""Serve a report over HTTP, to this machine only."""

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
    """Serves the files of one folder, read-only and without folder listings.

    It refuses files outside the folder, also through a link. It refuses requests for another host
    name, because a page of another site could use one to read the report (DNS rebinding).
    """

    def send_head(self) -> Any:
        host = (self.headers.get("Host") or "").rpartition(":")[0]
        folder = Path(self.directory).resolve()
        inside = Path(self.translate_path(self.path)).resolve().is_relative_to(folder)
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
        """Log nothing, so that a line for each request does not fill the terminal."""


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Return a server that already listens; with port 0 it takes any free port.

    Raises PipelineError if the port is taken.
    """
    handler = functools.partial(Handler, directory=str(folder))
    try:
        return ThreadingHTTPServer((LOOPBACK, port), handler)
    except OSError as error:
        raise PipelineError(
            f"report: port {port} cannot be used ({error.strerror}); give another with --port"
        ) from None


def serve(folder: Path, port: int) -> None:
    """Serve a folder until Ctrl-C."""
    with server(folder, port) as listening:
        log.info(f"http://{LOOPBACK}:{listening.server_address[1]}/ (ends with Ctrl-C)")
        listening.serve_forever()
