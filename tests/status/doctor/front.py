"""What a public URL leads to, as the walk finds it: a server in a thread whose answers a test chooses, one by one."""

from __future__ import annotations

import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

import msgspec

from harp.state.walks import SeenStep
from harp.status.doctor.road import WEBSOCKET_GUID

Step = Callable[["FrontRequest"], None]


class FrontRequest(BaseHTTPRequestHandler):
    """One request to the front."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        self.close_connection = True
        if self.raw_requestline and self.parse_request():
            self.server.front.step(self.path.rpartition("/")[2])(self)

    def handle_expect_100(self) -> bool:
        return True  # each step says itself what it does with bodies

    def log_message(self, *arguments: object) -> None:
        pass

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def announced(self) -> bool:
        return self.headers.get("Expect") == "100-continue"


class _Server(ThreadingHTTPServer):
    front: DoctorsFront


class DoctorsFront:
    """A front in order: every step arrives as it should. `steps` replaces some."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, **steps: Step) -> None:
        self._server = _Server(("127.0.0.1", 0), FrontRequest)
        self._server.front = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self.url = f"{'https' if tls else 'http'}://localhost:{self.port}"
        self._steps = {**ORDER, **steps}
        self.released = threading.Event()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def step(self, name: str) -> Step:
        return self._steps[name]


def seen_by(request: FrontRequest) -> SeenStep:
    peer, peer_port = request.client_address[:2]
    return SeenStep(
        path=request.path,
        peer=str(peer),
        peer_port=int(peer_port),
        address=str(peer),
        told="",
        neighbour=True,
        host=request.headers.get("Host", ""),
        proto="https" if isinstance(request.connection, ssl.SSLSocket) else "http",
        upgrade=False,
    )


def hello(request: FrontRequest) -> None:
    request.say(200, msgspec.json.encode(seen_by(request)))


def body(request: FrontRequest) -> None:
    if request.announced():
        request.send_response_only(100)
        request.end_headers()
        return
    received = len(request.rfile.read(int(request.headers["Content-Length"])))
    request.say(200, b'{"bytes": %d}' % received)


def events(request: FrontRequest) -> None:
    request.send_response(200)
    request.send_header("Content-Type", "text/event-stream")
    request.end_headers()
    request.wfile.write(b"data: first\n\ndata: second\n\n")
    request.server.front.released.wait(10)
    request.wfile.write(b"data: third\n\n")


def release(request: FrontRequest) -> None:
    request.rfile.read(int(request.headers["Content-Length"]))
    request.server.front.released.set()
    request.say(200)


def accept_of(request: FrontRequest) -> str:
    key = request.headers["Sec-WebSocket-Key"].encode()
    return b64encode(sha1(key + WEBSOCKET_GUID, usedforsecurity=False).digest()).decode()


def websocket(request: FrontRequest) -> None:
    request.send_response(101)
    request.send_header("Upgrade", "websocket")
    request.send_header("Connection", "Upgrade")
    request.send_header("Sec-WebSocket-Accept", accept_of(request))
    request.end_headers()
    request.rfile.read(10)
    request.wfile.write(b"\x81\x04harp")


def answers(status: int, text: bytes = b"", **headers: str) -> Step:
    """A step that is answered like this, whatever was asked."""
    return lambda request: request.say(status, text, **headers)


def speaks_something_else(request: FrontRequest) -> None:
    request.wfile.write(b"220 mail.example.com ESMTP\r\n")


def hangs_up(request: FrontRequest) -> None:
    request.connection.shutdown(socket.SHUT_RDWR)


ORDER: dict[str, Step] = {
    "hello": hello,
    "body": body,
    "events": events,
    "release": release,
    "websocket": websocket,
}
