"""The steps of `harp doctor` through the public URL: each reports how it has arrived, and nothing else.

Access is decided before: `policy.decide` lets through only requests with the nonce of a walk in progress.
Every step is bounded in bytes and time.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import WSMsgType, web

from harp.state.walks import SEEN

LARGEST_BODY = 64 << 20  # bytes that are read of one body
LONGEST_READ = 20.0  # seconds
APART = 0.2  # seconds between the first two events
HOLD = 6.0  # seconds until the last event is sent in any case
LARGEST_MESSAGE = 256  # bytes
PATIENCE = 5.0  # seconds for the WebSocket's message
MOST_WAITING = 8  # streams of events at a time
AT_ONCE = {"Cache-Control": "no-store"}


def register(app: web.Application) -> None:
    """Add the steps to the control API."""
    steps = WalkSteps()
    app.router.add_get("/doctor/{nonce}/hello", steps.hello)
    app.router.add_post("/doctor/{nonce}/body", steps.body)
    app.router.add_get("/doctor/{nonce}/events", steps.events)
    app.router.add_post("/doctor/{nonce}/release", steps.release)
    app.router.add_get("/doctor/{nonce}/websocket", steps.websocket)


class WalkSteps:
    """The steps. `events` waits for `release`."""

    def __init__(self) -> None:
        self._held: dict[str, asyncio.Event] = {}

    async def hello(self, request: web.Request) -> web.Response:
        """Return how a request arrives."""
        return _seen(request, 200)

    async def body(self, request: web.Request) -> web.Response:
        """Return how much of a body arrives."""
        count = 0
        with suppress(OSError):  # the walk has only asked whether it might send one; TimeoutError is one, too
            async with asyncio.timeout(LONGEST_READ):
                async for piece in request.content.iter_any():
                    count += len(piece)
                    if count > LARGEST_BODY:
                        raise web.HTTPRequestEntityTooLarge(LARGEST_BODY, count)
        return web.json_response({"bytes": count}, headers=AT_ONCE)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send two events, and a third when the second has arrived; buffering proxies, too, pass on the first."""
        nonce = request.match_info["nonce"]
        if len(self._held) >= MOST_WAITING:
            raise web.HTTPServiceUnavailable
        held = self._held.setdefault(nonce, asyncio.Event())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **AT_ONCE})
        try:
            await response.prepare(request)
            await response.write(b"data: first\n\n")
            await asyncio.sleep(APART)
            await response.write(b"data: second\n\n")
            with suppress(TimeoutError):
                async with asyncio.timeout(HOLD):
                    await held.wait()
            await response.write(b"data: third\n\n")
        finally:
            self._held.pop(nonce, None)
        return response

    async def release(self, request: web.Request) -> web.Response:
        """Note that the second event has arrived, or never will."""
        held = self._held.get(request.match_info["nonce"])
        if held is not None:
            held.set()
        return web.Response(status=204, headers=AT_ONCE)

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        """Send one message back."""
        socket = web.WebSocketResponse(max_msg_size=LARGEST_MESSAGE, timeout=PATIENCE, receive_timeout=PATIENCE)
        if not socket.can_prepare(request):
            return _seen(request, 426)
        await socket.prepare(request)
        with suppress(TimeoutError):
            message = await socket.receive()
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
        await socket.close()
        return socket


def _seen(request: web.Request, status: int) -> web.Response:
    seen = request.headers.get(SEEN)
    if seen is None:  # with the shared key, one comes here without a walk
        raise web.HTTPNotFound
    return web.Response(status=status, text=seen, content_type="application/json", headers=AT_ONCE)
