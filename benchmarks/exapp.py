"""The benchmark's own ExApp, as fast as Python can: `python -m benchmarks.exapp <socket> <port>`, until TERM.

POST <any>      swallows the body, answers its size
GET /events     server-sent events: the first one tells when it was sent, and no other follows
GET /tiny       100,000 chunks of one byte
GET /echo       a WebSocket that sends back short messages
GET /raw        a WebSocket that sends back every byte as it is: the peers between do not care, and it costs nothing
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import time
from base64 import b64encode
from hashlib import sha1
from typing import Final, cast

import uvloop

EVENTS: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TINY: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n"
SWITCHING: Final = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
BUFFER: Final = memoryview(
    bytearray(1 << 20)
)  # of all connections: what has arrived is used up before it is lent again

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_KEY = re.compile(rb"sec-websocket-key: *([^\r]+)", re.IGNORECASE)


class Service(asyncio.BufferedProtocol):
    """One connection, one request after the other."""

    def __init__(self) -> None:
        self._pending = b""  # of a head, or of a frame
        self._size = self._left = 0  # of an upload
        self._upgraded = self._raw = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by name

    def get_buffer(self, sizehint: int) -> memoryview:
        return BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        if self._left:
            self._swallow(nbytes)
            return
        if self._raw:
            self._transport.write(bytes(BUFFER[:nbytes]))
            return
        self._pending += BUFFER[:nbytes]
        if self._upgraded:
            self._echo()
        elif b"\r\n\r\n" in self._pending:
            head, _, rest = self._pending.partition(b"\r\n\r\n")
            self._pending = b""
            self._serve(head, len(rest))

    def _serve(self, head: bytes, received: int) -> None:
        """Answer the request, of whose body `received` bytes are here already."""
        target = head.split(b" ", 2)[1]
        if target == b"/events":
            self._send_event()
        elif target == b"/tiny":
            self._transport.write(TINY)
        elif target in (b"/echo", b"/raw") and (key := _KEY.search(head)):
            accept = b64encode(sha1(key[1].strip() + GUID).digest())
            self._transport.write(SWITCHING + b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept)
            self._upgraded = True
            self._raw = target == b"/raw"
        else:
            length = _LENGTH.search(head)
            self._size = self._left = int(length[1]) if length else 0
            self._swallow(received)

    def _swallow(self, received: int) -> None:
        self._left -= received
        if self._left == 0:
            text = str(self._size).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))

    def _send_event(self) -> None:
        event = b"data: %d\n\n" % time.monotonic_ns()  # the same clock in every process of the machine
        self._transport.write(EVENTS + b"%x\r\n%b\r\n" % (len(event), event))

    def _echo(self) -> None:
        """Send back every complete frame, unmasked; clients send up to 125 bytes in one."""
        while len(self._pending) >= 6 and len(self._pending) >= (end := 6 + (self._pending[1] & 0x7F)):
            mask, masked = self._pending[2:6], self._pending[6:end]
            payload = bytes(byte ^ mask[position & 3] for position, byte in enumerate(masked))
            self._transport.write(bytes((self._pending[0], len(payload))) + payload)
            self._pending = self._pending[end:]


async def serve(path: str, port: int) -> None:
    """Serve until TERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    servers = [
        await loop.create_unix_server(Service, path),
        await loop.create_server(Service, "127.0.0.1", port, backlog=1024),
    ]
    await stop.wait()
    for server in servers:
        server.close()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
