"""A webhook that remembers what it gets."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any


@dataclass
class Webhook:
    url: str
    received: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@contextmanager
def webhook(status: int) -> Iterator[Webhook]:
    """An HTTP server that remembers what was posted to it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.received.append((self.headers["Content-Type"], json.loads(body)))
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        hook = Webhook(f"http://127.0.0.1:{server.server_port}/services/the-secret")
        Thread(target=server.serve_forever, daemon=True).start()
        yield hook
        server.shutdown()
