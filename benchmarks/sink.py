"""An ExApp that swallows uploads as fast as Python can and answers their size: `python -m benchmarks.sink <socket>`."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from typing import cast

import uvloop


class Sink(asyncio.BufferedProtocol):
    """One connection, one upload with Content-Length after the other."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(1 << 20))
        self._head = b""
        self._size = self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by name

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self._left:
            self._head += self._buffer[:nbytes]
            head, blank, body = self._head.partition(b"\r\n\r\n")
            if not blank:
                return
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            self._size = self._left = int(length[1]) if length else 0
            self._head, nbytes = b"", len(body)
        self._left -= nbytes
        if self._left == 0:
            text = str(self._size).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))


async def serve(path: str) -> None:
    """Serve until TERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_unix_server(Sink, path)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
