"""A Nextcloud that answers every call, but resets some connections before, and stops listening for a moment."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from typing import Self

RESET_EVERY = 7  # connections
LINGER = struct.pack("ii", 1, 0)  # closing then sends a reset


class Flaky:
    """async with Flaky() as nextcloud: ... nextcloud.url; `reset` counts the connections that were reset."""

    def __init__(self) -> None:
        self.reset = 0
        self._accepted = 0
        self._port = 0
        self._server: asyncio.Server | None = None
        self._away: asyncio.TimerHandle | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.close()

    def be_away(self, seconds: float) -> None:
        """Refuse connections for so long. Those that are open go on."""
        assert self._server is not None
        self._server.close()
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, lambda: loop.create_task(self._listen()))

    async def _listen(self) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", self._port))
        self._port = sock.getsockname()[1]
        self._server = await asyncio.start_server(self._serve, sock=sock)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._accepted += 1
        if self._accepted % RESET_EVERY == 0:
            self.reset += 1
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
            writer.transport.abort()
            return
        self._writers.add(writer)
        body = json.dumps({"user_id": "bob", "access_level": 1}).encode()
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.005)
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        writer.close()
        self._writers.discard(writer)
