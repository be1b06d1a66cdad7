"""A Nextcloud with many ExApps, each on a unix socket behind a tunnel port, in a process of its own.

As a program: `python -m tests.live.many_apps <nextcloud port> <directory> <number>`, until TERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from harp.testing.hello import Hello
from harp.testing.nextcloud import NextcloudStandIn
from tests.live.processes import Process, free_port
from tests.live.product import KEY
from tests.live.world import raise_descriptor_limit

FIRST_PORT = 23000


def app(number: int) -> str:
    return f"app{number:02}"


class ManyApps:
    """The process, and where to find what is in it. Its directory has a short path."""

    def __init__(self, directory: Path, number: int) -> None:
        self.number = number
        self._directory = directory
        port = free_port()
        self.nextcloud = f"http://127.0.0.1:{port}"
        argv = [sys.executable, "-m", "tests.live.many_apps", str(port), str(directory), str(number)]
        self.process = Process(argv, directory / "apps.log")
        self.process.until(lambda: "ready" in self.process.text(), "stand-ins")

    def socket(self, number: int) -> Path:
        return self._directory / f"{app(number)}.sock"


async def serve(port: int, directory: Path, number: int) -> None:
    """Serve until TERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with AsyncExitStack() as stack:
        nextcloud = await stack.enter_async_context(NextcloudStandIn(KEY, port=port))
        for one in range(number):
            hello = Hello(app(one), f"secret of {app(one)}", socket=directory / f"{app(one)}.sock")
            nextcloud.register(hello.record("127.0.0.1", FIRST_PORT + one))
            await stack.enter_async_context(hello)
        print("ready", flush=True)
        await stop.wait()


if __name__ == "__main__":
    raise_descriptor_limit(10_000)
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
