"""Requests to the public URL, one connection each, with every wait limited. Blocks: runs in a thread."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha1
from urllib.parse import urlsplit

from msgspec import Struct

from harp import __version__
from harp.errors import HarpError, words_of

PATIENCE = 8.0  # seconds for each step on the network
EVENT = 3.0  # seconds for an event that was sent
LONGEST_ANSWER = 65536  # bytes that are read of one
AGENT = f"harp-doctor/{__version__}"
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
MASK = b"\x11\x22\x33\x44"


class RoadBroken(HarpError):
    """A step got no answer; the text says why."""


class StepAnswer(Struct, frozen=True):
    """What came back."""

    status: int
    headers: Mapping[str, str]  # by lower-case name
    body: bytes
    local_port: int = 0  # of the connection, at our end

    @property
    def is_of_harp(self) -> bool:
        """Return whether a HaRP has written it, as an error of its own."""
        return "x-request-id" in self.headers and b"request id: " in self.body


class Road:
    """The way to one public URL. `verify`: believe only certificates that a browser would."""

    def __init__(self, url: str, *, verify: bool = True) -> None:
        parts = urlsplit(url)
        self.url = url.rstrip("/")
        self.secure = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if self.secure else 80)
        self.netloc = parts.netloc.rpartition("@")[2]
        self._path = parts.path.rstrip("/")
        self._context = _context(verify=verify) if self.secure else None

    def connect(self) -> socket.socket:
        """Return a connection. Raises OSError, of which ssl.SSLError is one."""
        sock = socket.create_connection((self.host, self.port), PATIENCE)
        try:
            return self._context.wrap_socket(sock, server_hostname=self.host) if self._context else sock
        except BaseException:
            sock.close()
            raise

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> StepAnswer:
        """Make a request below the URL. Raises RoadBroken."""
        with self._request(method, path, headers or {}, body) as connection:
            return _read(connection)

    def largest_body(self, path: str, sizes: tuple[int, ...]) -> tuple[int, StepAnswer | None]:
        """Announce bodies of these `sizes`, the largest first, and send none: the first that is not refused, or 0.

        With the answer that refused the last one before. Raises RoadBroken.
        """
        refused = None
        for size in sizes:
            answer = self._announce(path, size)
            if answer is None or answer.status != http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                return size, refused
            refused = answer
        return 0, refused

    def _announce(self, path: str, size: int) -> StepAnswer | None:
        """Ask whether a body may be sent; None when it may, or when nobody says."""
        headers = {"Content-Length": str(size), "Expect": "100-continue"}
        with self._request("POST", path, headers, None) as connection:
            assert connection.sock is not None
            file = connection.sock.makefile("rb")
            try:
                status = file.readline(256).split(b" ")[1:2]
            except OSError:
                return None
            if not status or not status[0].isdigit() or int(status[0]) < 200:
                return None
            return StepAnswer(int(status[0]), {}, file.read1(LONGEST_ANSWER))

    def streams(self, path: str, release: str) -> bool:
        """Return whether two events arrive before the response ends. Raises RoadBroken."""
        with self._request("GET", path, {"Accept": "text/event-stream"}, None) as connection:
            assert connection.sock is not None
            connection.sock.settimeout(EVENT)
            try:
                response = connection.getresponse()
                events = b""
                while b"second" not in events and (piece := response.read1(256)):
                    events += piece
            except TimeoutError:
                return False
            except (OSError, http.client.HTTPException) as error:
                raise RoadBroken(_words(error)) from error
            finally:
                self.ask("POST", release, body=b"")
            if response.status != http.HTTPStatus.OK:
                raise RoadBroken(f"it answers {response.status}")
            return b"second" in events and b"third" not in events

    def websocket(self, path: str) -> tuple[StepAnswer, bool]:
        """Open a WebSocket and send a message. The answer, and whether the message came back. Raises RoadBroken."""
        key = b64encode(os.urandom(16))
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key.decode(),
        }
        with self._request("GET", path, headers, None) as connection:
            assert connection.sock is not None
            response = http.client.HTTPResponse(connection.sock, method="GET")
            try:
                response.begin()
                if response.status != http.HTTPStatus.SWITCHING_PROTOCOLS:
                    return _answer_of(response, 0), False
                expected = b64encode(sha1(key + WEBSOCKET_GUID, usedforsecurity=False).digest()).decode()
                accepted = response.getheader("Sec-WebSocket-Accept") == expected
                masked = bytes(byte ^ MASK[index % 4] for index, byte in enumerate(b"harp"))
                connection.sock.sendall(b"\x81\x84" + MASK + masked)
                echoed = response.fp.read(6)
            except (OSError, http.client.HTTPException) as error:
                raise RoadBroken(_words(error)) from error
            answer = StepAnswer(response.status, {}, b"")
            return answer, accepted and echoed == b"\x81\x04harp"

    @contextmanager
    def _request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Iterator[http.client.HTTPConnection]:
        """Send a request; who reads the answer has the connection until the block is over."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        try:
            connection.sock = self.connect()
            sent = {"Host": self.netloc, "User-Agent": AGENT, "Accept": "*/*", "Accept-Encoding": "identity", **headers}
            connection.putrequest(method, self._path + path, skip_host=True, skip_accept_encoding=True)
            if body is not None:
                sent["Content-Length"] = str(len(body))
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders()
            if body:
                _send(connection.sock, body)
        except OSError as error:
            connection.close()
            raise RoadBroken(_words(error)) from error
        try:
            yield connection
        finally:
            connection.close()


def _context(*, verify: bool) -> ssl.SSLContext:
    """Return what TLS goes by; reading whom this system trusts takes a while, and is left out where nobody asks."""
    if verify:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _send(sock: socket.socket, body: bytes) -> None:
    """Send a body; who refuses it closes early, and its answer is there all the same."""
    with suppress(BrokenPipeError, ConnectionResetError):
        sock.sendall(body)


def _read(connection: http.client.HTTPConnection) -> StepAnswer:
    try:
        port = connection.sock.getsockname()[1] if connection.sock else 0
        return _answer_of(connection.getresponse(), port)
    except (OSError, http.client.HTTPException) as error:
        raise RoadBroken(_words(error)) from error


def _answer_of(response: http.client.HTTPResponse, local_port: int) -> StepAnswer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return StepAnswer(response.status, headers, response.read(LONGEST_ANSWER), local_port)


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {PATIENCE:g} s"
    if isinstance(error, OSError):
        return words_of(error)
    return f"it does not speak HTTP ({type(error).__name__})"
