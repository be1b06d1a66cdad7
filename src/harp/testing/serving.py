"""What the stand-ins have in common: a small web server that starts, stops and restarts at the same address."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from aiohttp import web

GRACE = 1.0  # seconds that running requests get when a stand-in stops


class Served:
    """An aiohttp application on a unix socket, or on a TCP port (0 = any free one, the same again after a restart).

    Use it as `async with`, or call `start` and `stop`.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, socket: Path | None = None) -> None:
        self.host = host
        self.port = port
        self.socket = socket
        self._runner: web.AppRunner | None = None

    def application(self) -> web.Application:
        """Return the application to serve; called at each start."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """Where it is served by TCP, without trailing "/"."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Start serving. Raises OSError if the address is in use."""
        runner = web.AppRunner(self.application(), access_log=None, shutdown_timeout=GRACE)
        await runner.setup()
        try:
            if self.socket is not None:
                await web.UnixSite(runner, str(self.socket)).start()
            else:
                await web.TCPSite(runner, self.host, self.port).start()
                self.port = runner.addresses[0][1]
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner

    async def stop(self) -> None:
        """Close the listener and every connection. Harmless when not started."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
            if self.socket is not None:
                self.socket.unlink(missing_ok=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
