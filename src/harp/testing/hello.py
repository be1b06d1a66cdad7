"""A sample ExApp with a route of every kind: what an ExApp must answer (A 8.2), and traffic of every shape.

async with Hello("hello", secret, socket=Path("/tmp/exapp.sock")) as hello:
    nextcloud.register(hello.record("127.0.0.1", 23000))
"""

from __future__ import annotations

import asyncio
import hmac
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Awaitable, Callable, Iterator
from hashlib import sha256
from html import escape
from pathlib import Path
from random import Random
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web

from harp.policy.exapp import ExApp, Level, Route
from harp.testing.serving import Served

VERSION: Final = "1.0.0"
LARGEST_STATIC: Final = 1 << 40  # bytes
LARGEST_MESSAGE: Final = 16 << 20  # bytes, one WebSocket message
# A prime length: two chunks of a body that changed places, or one that is there twice, change the content.
BLOCK: Final = Random(1).randbytes(65521)  # noqa: S311 - test data, not a secret
PAGE: Final = Path(__file__).with_name("hello.html")
ROUTES: Final = (
    Route("^/$", Level.PUBLIC),
    Route("^/public$", Level.PUBLIC),
    Route("^/user$", Level.USER),
    Route("^/admin$", Level.ADMIN),
    Route("^/static/[0-9]+$", Level.PUBLIC),
    Route("^/echo(/.*)?$", Level.USER),
    Route("^/upload$", Level.PUBLIC),
    Route("^/sse$", Level.PUBLIC),
    Route("^/ws$", Level.PUBLIC),
)

USER: Final = web.RequestKey("user", str)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def static_content(size: int) -> Iterator[bytes]:
    """Yield the body of /static/<size>, in pieces."""
    for _ in range(size // len(BLOCK)):
        yield BLOCK
    if size % len(BLOCK):
        yield BLOCK[: size % len(BLOCK)]


class Hello(Served):
    """The sample ExApp. It accepts only requests with its own id and secret, as nc_py_api does."""

    def __init__(
        self,
        app_id: str,
        secret: str,
        *,
        socket: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        login: str = "",
    ) -> None:
        """`login` is the URL at which people log in; "" = the page does not show it."""
        super().__init__(host=host, port=port, socket=socket)
        self.app_id = app_id
        self._secret = secret
        self._login = login
        self.enabled: bool | None = None  # what AppAPI said last
        self.initialised = 0  # number of /init calls
        self._open: set[web.WebSocketResponse] = set()
        self._stopping = asyncio.Event()

    def record(self, host: str, port: int) -> ExApp:
        """Return what Nextcloud knows of this ExApp when it is reached at `host` and `port`."""
        return ExApp(self.app_id.lower(), self._secret, VERSION, host, port, ROUTES)

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._let_go, self._authenticate])
        self._stopping.clear()
        application.on_shutdown.append(self._close_streams)
        application.router.add_get("/", self._page)
        for path in ("/public", "/user", "/admin"):
            application.router.add_get(path, self._greet)
        application.router.add_get("/static/{size:[0-9]+}", self._static)
        application.router.add_route("*", "/echo{rest:(/.*)?}", self._echo)
        application.router.add_route("*", "/upload", self._upload)
        application.router.add_get("/sse", self._sse)
        application.router.add_get("/ws", self._ws)
        application.router.add_get("/heartbeat", self._heartbeat)
        application.router.add_post("/init", self._init)
        application.router.add_put("/enabled", self._enabled)
        return application

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse requests that did not come through HaRP or AppAPI (A 8.2); /heartbeat is open to all."""
        if request.path != "/heartbeat":
            try:
                request[USER] = self._user(request)
            except PermissionError as error:
                return web.Response(status=401, text=f"{error}\n")
        return await handler(request)

    @web.middleware
    async def _let_go(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Ignore a client that disconnects in the middle of an answer: that is not an error."""
        try:
            return await handler(request)
        except ConnectionResetError:
            return web.Response()

    def _user(self, request: web.Request) -> str:
        """Return the calling user, "" for nobody. Raises PermissionError unless id and secret are ours."""
        if request.headers.get("ex-app-id") != self.app_id or not request.headers.get("ex-app-version"):
            raise PermissionError("EX-APP-ID or EX-APP-VERSION is missing or not ours")
        try:
            encoded = request.headers.get("authorization-app-api", "")
            user, _, secret = b64decode(encoded, validate=True).decode().partition(":")
        except (Base64Error, UnicodeDecodeError):
            raise PermissionError("AUTHORIZATION-APP-API cannot be read") from None
        if not hmac.compare_digest(secret.encode(), self._secret.encode()):
            raise PermissionError("AUTHORIZATION-APP-API has a wrong secret")
        return user

    async def _greet(self, request: web.Request) -> web.Response:
        return web.Response(text=f"Hello {request[USER] or 'stranger'}, this is {request.path}\n")

    async def _page(self, request: web.Request) -> web.Response:
        """Return a page for a browser, with links to try everything."""
        login = f' <a href="{escape(self._login)}">Log in</a> as user:user or admin:admin.' if self._login else ""
        text = PAGE.read_text("utf-8").replace("{user}", escape(request[USER] or "stranger")).replace("{login}", login)
        return web.Response(text=text, content_type="text/html")

    async def _static(self, request: web.Request) -> web.StreamResponse:
        """n bytes, never more than one block of them in memory."""
        size = int(request.match_info["size"])
        if size > LARGEST_STATIC:
            return web.Response(status=400, text=f"at most {LARGEST_STATIC} bytes\n")
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        response.content_length = size
        await response.prepare(request)
        if request.method != "HEAD":
            for piece in static_content(size):
                await response.write(piece)
        await response.write_eof()
        return response

    async def _echo(self, request: web.Request) -> web.Response:
        """Return the request head as JSON; header bytes as ISO 8859-1, in their order and spelling."""
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.raw_headers]
        version = f"{request.version.major}.{request.version.minor}"
        return web.json_response(
            {"method": request.method, "target": request.raw_path, "version": version, "headers": headers}
        )

    async def _upload(self, request: web.Request) -> web.Response:
        digest, size = sha256(), 0
        async for piece in request.content.iter_any():
            digest.update(piece)
            size += len(piece)
        return web.json_response({"bytes": size, "sha256": digest.hexdigest()})

    async def _sse(self, request: web.Request) -> web.StreamResponse:
        """Events `?interval` seconds apart (default 1), `?count` of them or until somebody leaves."""
        try:
            interval = min(max(float(request.query.get("interval", "1")), 0.001), 3600.0)
            count = int(request.query.get("count", "0")) or None
        except ValueError:
            return web.Response(status=400, text="interval and count are numbers\n")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        number = 0
        while number != count and not self._stopping.is_set():
            number += 1
            await response.write(f"id: {number}\ndata: hello {number}\n\n".encode())
            if number != count:
                await self._pause(interval)
        await response.write_eof()
        return response

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than we are served."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _ws(self, request: web.Request) -> web.WebSocketResponse:
        """Send every message back as it is."""
        socket = web.WebSocketResponse(max_msg_size=LARGEST_MESSAGE)
        await socket.prepare(request)
        self._open.add(socket)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await socket.send_str(message.data)
                elif message.type is WSMsgType.BINARY:
                    await socket.send_bytes(message.data)
        finally:
            self._open.discard(socket)
        return socket

    async def _close_streams(self, application: web.Application) -> None:
        self._stopping.set()
        for socket in list(self._open):
            await socket.close(code=WSCloseCode.GOING_AWAY)

    async def _heartbeat(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _init(self, request: web.Request) -> web.Response:
        self.initialised += 1
        return web.json_response({})

    async def _enabled(self, request: web.Request) -> web.Response:
        self.enabled = request.query.get("enabled") == "1"
        return web.json_response({"error": ""})
