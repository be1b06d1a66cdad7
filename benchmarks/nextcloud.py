"""The Nextcloud stand-in as a process: `python -m benchmarks.nextcloud <port> <app>=<host>:<port> ...`, until TERM."""

from __future__ import annotations

import asyncio
import signal
import sys

import uvloop
from tests.live.product import KEY

from harp.demo.nextcloud import NextcloudStandIn
from harp.policy.exapp import ExApp, Level, Route

ROUTES = (Route("^/user/", Level.USER), Route(".*", Level.PUBLIC))


async def serve(port: int, apps: list[str]) -> None:
    """Serve until TERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with NextcloudStandIn(KEY, port=port) as nextcloud:
        for app in apps:
            name, _, address = app.partition("=")
            host, _, app_port = address.rpartition(":")
            nextcloud.register(ExApp(name, f"secret of {name}", "1.0.0", host, int(app_port), ROUTES))
        print("ready", flush=True)
        await stop.wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2:]))
