"""A client that sends exactly the bytes it is told to, and reads answers by RFC 9112."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Self

PATIENCE = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class WireAnswer:
    """One answer, its body without the framing."""

    status: int
    head: bytes
    body: bytes
    trailers: bytes = b""

    def header(self, name: str) -> str | None:
        wanted = name.lower().encode()
        for line in self.head.split(b"\r\n")[1:]:
            found, _, value = line.partition(b":")
            if found.strip().lower() == wanted:
                return value.strip().decode("latin-1")
        return None


@dataclass(slots=True)
class Client:
    """One connection to 127.0.0.1:port."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def connect(cls, port: int) -> Self:
        async with asyncio.timeout(PATIENCE):
            return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.writer.transport.abort()

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            self.writer.write(data)
            await self.writer.drain()

    def finish(self) -> None:
        """Half-close: we send no more, but still read."""
        self.writer.write_eof()

    async def answer(self, method: str = "GET") -> WireAnswer:
        """The next answer; 1xx ones are answers of their own. Raises IncompleteReadError when it is cut short."""
        async with asyncio.timeout(PATIENCE):
            head = await self.reader.readuntil(b"\r\n\r\n")
            answer = WireAnswer(int(head.split(b" ", 2)[1]), head, b"")
            if method == "HEAD" or answer.status < 200 or answer.status in {204, 304}:
                return answer
            if answer.header("transfer-encoding"):
                return WireAnswer(answer.status, head, *await self._chunked())
            if (length := answer.header("content-length")) is not None:
                return WireAnswer(answer.status, head, await self.reader.readexactly(int(length)))
            return WireAnswer(answer.status, head, await self.reader.read())

    async def _chunked(self) -> tuple[bytes, bytes]:
        body, trailers = bytearray(), bytearray()
        while size := int((await self.reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
            trailers += line
        return bytes(body), bytes(trailers)

    async def rest(self) -> bytes:
        """Everything until the other side closes; a reset ends it as well."""
        async with asyncio.timeout(PATIENCE):
            data = bytearray()
            try:
                while chunk := await self.reader.read(65536):
                    data += chunk
            except ConnectionResetError:
                pass
            return bytes(data)
