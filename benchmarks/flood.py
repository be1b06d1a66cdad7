"""WebSocket messages at an ExApp that sends back every byte: `python -m benchmarks.flood PORT PATH SECONDS`."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

from benchmarks.client import get

MESSAGE = bytes((0x82, 0x80 | 32)) + bytes(4) + b"are you still there, my friend?!"  # masked by zeros
DEEP = 100  # messages under way on each connection of a flood
HANDSHAKE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


class Echoed(asyncio.Protocol):
    """Sends `depth` messages, and as many again whenever they are back."""

    def __init__(self, path: str, depth: int) -> None:
        self.messages = 0  # that are back
        self._path = path
        self._batch = MESSAGE * depth
        self._depth = depth
        self._missing = 0  # bytes of the batch under way
        self._head = b""
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(get(self._path, *HANDSHAKE))

    def data_received(self, data: bytes) -> None:
        if not self._open:
            self._head += data
            if b"\r\n\r\n" not in self._head:
                return
            if not self._head.startswith(b"HTTP/1.1 101 "):
                raise RuntimeError(f"no WebSocket: {self._head[:200]!r}")
            self._open = True
            self._send()
            return
        self._missing -= len(data)
        if self._missing == 0:
            self.messages += self._depth
            self._send()

    def _send(self) -> None:
        self._missing = len(self._batch)
        self._transport.write(self._batch)

    def close(self) -> None:
        self._transport.abort()


async def echo(port: int, path: str, *, sockets: int, depth: int, seconds: float) -> float:
    """Messages a second that made the whole way there and back."""
    loop = asyncio.get_running_loop()
    opened = []
    for _ in range(sockets):
        _, protocol = await loop.create_connection(lambda: Echoed(path, depth), "127.0.0.1", port)
        opened.append(protocol)
    await asyncio.sleep(0.2)
    before, began = sum(one.messages for one in opened), loop.time()
    await asyncio.sleep(seconds)
    rate = (sum(one.messages for one in opened) - before) / (loop.time() - began)
    for one in opened:
        one.close()
    if not rate:
        raise RuntimeError(f"no message came back from {path} at port {port}")
    return rate


async def flood(port: int, path: str, *, seconds: float) -> float:
    """20 connections with 100 messages under way each."""
    return await echo(port, path, sockets=20, depth=DEEP, seconds=seconds)


async def ping_pong(port: int, path: str, *, seconds: float) -> float:
    """100 connections with one message under way each."""
    return await echo(port, path, sockets=100, depth=1, seconds=seconds)


if __name__ == "__main__":
    print("messages/s:", uvloop.run(flood(int(sys.argv[1]), sys.argv[2], seconds=float(sys.argv[3]))))
