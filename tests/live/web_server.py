"""A web server as Nextcloud's own is: it answers any path, and has never heard of HaRP.

As a program: `python -m tests.live.web_server <port>`, until TERM.
"""

from __future__ import annotations

import sys
from hashlib import sha256

from aiohttp import web

from harp.testing.hello import static_content


async def answer(request: web.Request) -> web.StreamResponse:
    """By the last segment of the path: a WebSocket, an upload, so many bytes, or the request itself."""
    match request.path.rpartition("/")[2]:
        case "ws":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await socket.send_str(message.data)
            return socket
        case "upload":
            digest, count = sha256(), 0
            async for piece in request.content.iter_any():
                digest.update(piece)
                count += len(piece)
            return web.json_response({"bytes": count, "sha256": digest.hexdigest()})
        case number if number.isdigit():
            return web.Response(body=b"".join(static_content(int(number))))
    headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in request.raw_headers]
    return web.json_response({"target": request.raw_path, "headers": headers})


if __name__ == "__main__":
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), print=None)
