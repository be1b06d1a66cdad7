"""A Nextcloud whose answers are scripted, on a loopback port, that remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from dataclasses import dataclass, field
from typing import Self

from aiohttp import web

RECORD = {
    "exapp_token": "secret",
    "exapp_version": "1.2.3",
    "host": "127.0.0.1",
    "port": 23001,
    "routes": [{"url": "^/public", "access_level": 0, "bruteforce_protection": [401]}],
}
KEY_REFUSED = {"message": "Harp shared key is not valid"}


@dataclass(frozen=True)
class Answer:
    """What to say: a status, a body (JSON when it is no bytes), headers. `raw` replaces all of it on the wire."""

    status: int = 200
    body: object = b""
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    chunked: bool = False


@dataclass(frozen=True)
class Asked:
    """A call as it arrived. Header names are in lower case, in order, with duplicates."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    peer: tuple[str, int]  # the connection it came over

    def names(self) -> set[str]:
        return {name for name, _ in self.headers}

    def value(self, name: str) -> str:
        """The only value of a header."""
        (value,) = [value for header, value in self.headers if header == name]
        return value


class FakeNextcloud:
    """async with FakeNextcloud() as nextcloud: ... nextcloud.url

    `script` holds the next answers in order; when it is empty, `record` and `user` answer. While `open` is cleared,
    calls wait, so that a test can look at them under way.
    """

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._tls = tls
        self.record = Answer(body=RECORD)
        self.user = Answer(body={"user_id": "bob", "access_level": 1})
        self.script: deque[Answer] = deque()
        self.asked: list[Asked] = []
        self.arrived = asyncio.Condition()
        self.open = asyncio.Event()
        self._ended = asyncio.Event()
        self.open.set()
        self.hold = ""  # calls with this in their target are never answered
        self.url = ""

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"{'https' if self._tls else 'http'}://{host}:{port}"
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.open.set()
        self._ended.set()
        await self._runner.cleanup()

    def count(self, call: str) -> int:
        """How often "exapp-meta" or "user-info" was asked for."""
        return sum(f"/{call}?" in asked.target for asked in self.asked)

    async def wait_for(self, calls: int) -> None:
        """Until so many calls have arrived."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.asked) >= calls)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        headers = tuple((name.decode().lower(), value.decode("latin-1")) for name, value in request.raw_headers)
        assert request.transport is not None
        peer = request.transport.get_extra_info("peername")
        async with self.arrived:
            self.asked.append(Asked(request.method, request.raw_path, headers, peer))
            self.arrived.notify_all()
        await self.open.wait()
        if self.hold and self.hold in request.raw_path:
            await self._ended.wait()
        usual = self.record if "/exapp-meta" in request.path else self.user
        return await self._send(request, self.script.popleft() if self.script else usual)

    async def _send(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        if answer.raw is not None:
            assert request.transport is not None
            request.transport.write(answer.raw)
            request.transport.close()
            return web.Response()
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        if not answer.chunked:
            return web.Response(status=answer.status, body=body, headers=answer.headers)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.enable_chunked_encoding()
        await response.prepare(request)
        for start in range(0, len(body), 7):
            await response.write(body[start : start + 7])
        await response.write_eof()
        return response
