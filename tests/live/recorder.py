"""An ExApp that keeps every byte it was sent, and lets the test choose what it answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.live.processes import free_port

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(slots=True)
class Request:
    """One request as it arrived, cut at the blank line. A chunked body is kept as it was on the wire."""

    head: bytes
    body: bytes

    @property
    def line(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    def header(self, name: str) -> list[bytes]:
        """All values of a header, in order."""
        wanted = name.lower().encode()
        lines = (line.partition(b":") for line in self.head.split(b"\r\n")[1:])
        return [value.strip() for found, _, value in lines if found.lower() == wanted]


@dataclass(slots=True)
class RequestRecorder:
    """What arrived. `answers` are used up one by one; then each request gets `answer`.

    An answer that begins `close:` is sent without those letters and the connection is closed behind it. `early` is
    sent before the body is read. `silent`: no answer at all.
    """

    port: int
    answer: bytes = OK
    answers: list[bytes] = field(default_factory=list)
    early: bytes = b""
    silent: bool = False
    requests: list[Request] = field(default_factory=list)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                request = Request(head, b"")
                self.requests.append(request)
                if request.header("expect"):
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                writer.write(self.early)
                await self._read_body(reader, request)
                if self.silent:
                    await reader.read()
                    return
                answer = self.answers.pop(0) if self.answers else self.answer
                writer.write(answer.removeprefix(b"close:"))
                await writer.drain()
                if answer.startswith(b"close:"):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the connection has ended, in the middle of a request or not
        finally:
            self._writers.discard(writer)
            writer.close()

    def close(self) -> None:
        """End every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def _read_body(self, reader: asyncio.StreamReader, request: Request) -> None:
        if request.header("transfer-encoding"):
            while True:
                line = await reader.readuntil(b"\r\n")
                request.body += line
                size = int(line.partition(b";")[0], 16)
                if size == 0:
                    break
                request.body += await reader.readexactly(size + 2)
            while line != b"\r\n":
                line = await reader.readuntil(b"\r\n")
                request.body += line
        for length in request.header("content-length"):
            request.body += await reader.readexactly(int(length))


@asynccontextmanager
async def recorder() -> AsyncIterator[RequestRecorder]:
    """A recorder that listens on a loopback port inside the block."""
    recorder = RequestRecorder(free_port())
    server = await asyncio.start_server(recorder.serve, "127.0.0.1", recorder.port)
    try:
        yield recorder
    finally:
        server.close()
        recorder.close()
        await server.wait_closed()
