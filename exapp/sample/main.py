"""A small ExApp, with nothing but Python's standard library: what an app has to answer, and a greeting.

AppAPI tells it everything by environment variables: APP_ID, APP_SECRET, APP_HOST, APP_PORT, and HP_SHARED_KEY when it
is reached through a tunnel. Then it listens on a unix socket, else on APP_HOST:APP_PORT.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class Handler(BaseHTTPRequestHandler):
    """One connection of HaRP's."""

    protocol_version = "HTTP/1.1"
    timeout = 300  # seconds; HaRP keeps connections for later requests

    def do_GET(self) -> None:
        if self.path == "/heartbeat":  # open to all, so that it works before anything else does
            self.answer(200, {"status": "ok"})
        elif (user := self.caller()) is not None:
            self.answer(200, {"hello": user or "stranger", "path": self.path})

    def do_POST(self) -> None:
        """`/init`: AppAPI waits for 100 %, which a larger app reports itself when it is ready."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.caller() is not None:
            self.answer(200, {})

    def do_PUT(self) -> None:
        """`/enabled?enabled=1` and `=0`: an empty error is "fine"."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.caller() is not None:
            enabled = parse_qs(urlsplit(self.path).query).get("enabled") == ["1"]
            print("enabled" if enabled else "disabled", flush=True)
            self.answer(200, {"error": ""})

    def caller(self) -> str | None:
        """Who calls, "" for nobody in particular. None, and 401, unless HaRP or AppAPI has sent the request."""
        try:
            encoded = self.headers.get("AUTHORIZATION-APP-API", "")
            user, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            user, secret = "", ""
        ours = hmac.compare_digest(secret.encode(), os.environ["APP_SECRET"].encode())
        if ours and self.headers.get("EX-APP-ID") == os.environ["APP_ID"]:
            return user
        self.answer(401, {"error": "not signed"})
        return None

    def answer(self, status: int, body: dict[str, str]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def address_string(self) -> str:
        return "HaRP"  # a unix socket has no address


class UnixServer(ThreadingHTTPServer):
    """Listens on a unix socket; what a killed predecessor has left there is removed."""

    address_family = socket.AF_UNIX

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(("", 0), Handler)

    def server_bind(self) -> None:
        self.path.unlink(missing_ok=True)
        self.socket.bind(str(self.path))


def server() -> ThreadingHTTPServer:
    """Listening where HaRP looks for it."""
    if os.environ.get("HP_SHARED_KEY"):
        return UnixServer(Path(os.environ.get("HP_EXAPP_SOCK", "/tmp/exapp.sock")))  # noqa: S108 - a place agreed on
    return ThreadingHTTPServer((os.environ["APP_HOST"], int(os.environ["APP_PORT"])), Handler)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    server().serve_forever()
