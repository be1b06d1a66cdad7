"""Everything around HaRP in a process of its own: the Nextcloud stand-in and two sample ExApps.

"direct" listens on TCP and is reached without a tunnel; "hello" listens on a unix socket behind the tunnel port 23000.
As a program: `python -m tests.live.world <nextcloud port> <direct port> <hello socket>`, until TERM.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from pathlib import Path

import uvloop

from harp.testing.hello import Hello
from harp.testing.nextcloud import NextcloudStandIn
from tests.live.processes import Process, free_port
from tests.live.product import KEY

TUNNEL_PORT = 23000


class World:
    """The process, and where to find what is in it."""

    def __init__(self, directory: Path, nextcloud_port: int = 0) -> None:
        self.nextcloud_port, self.direct_port = nextcloud_port or free_port(), free_port()
        self.socket = directory / "hello.sock"
        arguments = [str(self.nextcloud_port), str(self.direct_port), str(self.socket)]
        self.process = Process([sys.executable, "-m", "tests.live.world", *arguments], directory / "world.log")
        self.process.until(lambda: "ready" in self.process.text(), "stand-ins")

    @property
    def nextcloud(self) -> str:
        return f"http://127.0.0.1:{self.nextcloud_port}"


async def serve(nextcloud_port: int, direct_port: int, socket: Path) -> None:
    """Serve until TERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    nextcloud = NextcloudStandIn(KEY, port=nextcloud_port)
    direct = Hello("direct", "secret of direct", port=direct_port)
    hello = Hello("hello", "secret of hello", socket=socket)
    nextcloud.register(direct.record("127.0.0.1", direct_port))
    nextcloud.register(hello.record("127.0.0.1", TUNNEL_PORT))
    async with nextcloud, direct, hello:
        print("ready", flush=True)
        await stop.wait()


def raise_descriptor_limit(wanted: int) -> int:
    """Open files that this process may have from now on: `wanted`, or as many as the system grants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    best = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < best:
        resource.setrlimit(resource.RLIMIT_NOFILE, (best, hard))
        return best
    return soft


if __name__ == "__main__":
    raise_descriptor_limit(10_000)
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
