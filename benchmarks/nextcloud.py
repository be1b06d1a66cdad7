"""The Nextcloud stand-in as a process: `python -m benchmarks.nextcloud <port> <app>=<host>:<port> ...`, until TERM.

`GET /asked?app=<app>` tells how many calls were made for an ExApp, as JSON: {"exapp-meta": 1, "user-info": 1}.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from urllib.parse import parse_qs, urlsplit

import uvloop
from aiohttp import web
from tests.live.product import KEY

from benchmarks.peers import WIDE
from harp.policy.exapp import ExApp, Level, Route
from harp.testing.nextcloud import NextcloudStandIn

ROUTES = (Route("^/user/", Level.USER), Route(".*", Level.PUBLIC))
MANY = (*(Route(f"^/api/v{number}/[a-z]+/items$", Level.USER) for number in range(998)), Route(".*", Level.PUBLIC))


class CountingStandIn(NextcloudStandIn):
    """One that can be asked from outside what it was asked."""

    def application(self) -> web.Application:
        application = super().application()
        application.router.add_get("/asked", self._asked)
        return application

    async def _asked(self, request: web.Request) -> web.Response:
        calls: Counter[str] = Counter()
        for call in self.requests:  # the latest ones
            parts = urlsplit(call.target)
            if parse_qs(parts.query).get("appId") == [request.query["app"]]:
                calls[parts.path.rpartition("/")[2]] += 1
        return web.json_response(calls)


async def serve(port: int, apps: list[str]) -> None:
    """Serve until TERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with CountingStandIn(KEY, port=port) as nextcloud:
        for app in apps:
            name, _, address = app.partition("=")
            host, _, app_port = address.rpartition(":")
            routes = MANY if name.startswith(WIDE) else ROUTES
            nextcloud.register(ExApp(name, f"secret of {name}", "1.0.0", host, int(app_port), routes))
        print("ready", flush=True)
        await stop.wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2:]))
