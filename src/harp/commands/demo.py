"""`harp demo`: everything in one process, connected as in production.

A browser's request goes through everything: frontend, decision (with calls to the Nextcloud stand-in), port table, FRP
session over mutual TLS, our tunnel client, and the unix socket of the sample ExApp.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from harp import __version__
from harp.app import Harp
from harp.commands.arguments import port
from harp.commands.parts import Parts
from harp.commands.watching import Feed, cancelled, serve_until_told
from harp.errors import Unreachable
from harp.net.targets import Tcp, Unix
from harp.policy.ports import EXAPP_PORTS, SERVER_NAME
from harp.settings import Settings, load
from harp.testing.hello import Hello
from harp.testing.nextcloud import NextcloudStandIn
from harp.tunnel.client import frpc_config
from harp.tunnel.client.client import TunnelClient
from harp.tunnel.client.frpc_config import ClientConfig, ClientProxy, ClientTls
from harp.tunnel.client.frpc_toml import written

APP_ID = "hello"
APP_PORT = EXAPP_PORTS[0]  # a name in the port table; nothing listens on it
TUNNEL_WAIT = 15.0  # seconds until the ExApp's tunnel must stand


@dataclass(frozen=True, slots=True)
class Options:
    """Where to listen, all on 127.0.0.1; 0 = any free port."""

    port: int = 8780
    frp_port: int = 8782
    admin_port: int = 8200


class Demo(Parts):
    """The running demonstration. Use it as `async with`; its files live in a temporary directory until then."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._options = options
        self._key = secrets.token_urlsafe(24)
        self.nextcloud = NextcloudStandIn(self._key)

    async def __aexit__(self, *_: object) -> None:
        self.harp.tunnel.stop_accepting()  # the sample ExApp leaves first, and that is no news
        await super().__aexit__(*_)

    async def _start(self) -> None:
        """Start all parts. Raises HarpError if one cannot start, for example because a port is taken."""
        directory = Path(self._stack.enter_context(TemporaryDirectory(prefix="harp-demo-")))
        await self._stack.enter_async_context(self.nextcloud)
        self.hello = Hello(
            APP_ID, secrets.token_urlsafe(24), socket=directory / "exapp.sock", login=f"{self.nextcloud.url}/login"
        )
        await self._stack.enter_async_context(self.hello)
        self.nextcloud.register(self.hello.record("127.0.0.1", APP_PORT))
        self.harp = Harp(self._settings(directory / "certs"))
        await self.harp.start()
        self._stack.push_async_callback(self.harp.stop)
        await self._connect_tunnel(directory)

    def _settings(self, certs: Path) -> Settings:
        options = self._options
        return load(
            {
                "HP_SHARED_KEY": self._key,
                "NC_INSTANCE_URL": self.nextcloud.url,
                "HP_EXAPPS_ADDRESS": f"127.0.0.1:{options.port}",
                "HP_PUBLIC_URL": f"http://127.0.0.1:{options.port}" if options.port else "",  # no proxy before it
                "HP_FRP_ADDRESS": f"127.0.0.1:{options.frp_port}",
                "HP_ADMIN_ADDRESS": f"127.0.0.1:{options.admin_port}",
                "HP_CERTS_DIR": str(certs),
                "HP_TIMEOUT_DRAIN": "1s",
            }
        )

    async def _connect_tunnel(self, directory: Path) -> None:
        """Start the ExApp's tunnel client with the configuration file that an ExApp writes (A 8.1)."""
        certs = directory / "certs" / "frp"
        config = ClientConfig(
            server=Tcp("127.0.0.1", self.harp.frp_ports[0]),
            proxies=(ClientProxy(APP_ID, APP_PORT, Unix(str(directory / "exapp.sock"))),),
            tls=ClientTls(
                str(certs / "ca.crt"), str(certs / "client.crt"), str(certs / "client.key"), server_name=SERVER_NAME
            ),
            exit_on_failed_login=False,
            metas={"token": self._key},
        )
        file = directory / "frpc.toml"
        file.write_text(written(config))
        client = asyncio.create_task(TunnelClient(frpc_config.load(file, {})).run())
        self._stack.push_async_callback(cancelled, client)
        waiting = asyncio.create_task(self.harp.ports.wait(APP_PORT, TUNNEL_WAIT))
        await asyncio.wait((client, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            await cancelled(waiting)
            raise Unreachable("the tunnel client of the sample ExApp gave up") from client.exception()
        await waiting

    @property
    def feed(self) -> Feed:
        """The feed of its requests."""
        return self.harp.facts.feed

    def text(self) -> str:
        """Return what to try, for people."""
        base = f"http://127.0.0.1:{self.harp.http_ports[0]}/exapps"
        admin = f"http://127.0.0.1:{self.harp.admin_ports[0]}"
        tries = (
            (f"curl {base}/hello/public", "200, for everybody"),
            (f"curl {base}/hello/user", "403, nobody is logged in"),
            (f"curl -u user:user {base}/hello/user", "200"),
            (f"curl -u user:user {base}/hello/admin", "403, for admins only"),
            (f"curl -u admin:admin {base}/hello/admin", "200"),
            (f"curl {base}/nope/x", "404, no such ExApp"),
            (f"curl -u user:user {base}/hello/echo", "the request as the ExApp gets it"),
            (f"curl -o /dev/null {base}/hello/static/1000000000", "1 GB through the tunnel"),
            (f"curl -T README.md {base}/hello/upload", "length and SHA-256 of what arrived"),
            (f"curl -N {base}/hello/sse", "an event each second"),
            (f"curl {admin}/readyz", "is HaRP ready?"),
        )
        width = max(len(command) for command, _ in tries)
        lines = [f"  {command:<{width}}  # {comment}" for command, comment in tries]
        return "\n".join(
            (
                f"HaRP {__version__} on {base}, tunnels on 127.0.0.1:{self.harp.frp_ports[0]}.",
                f'Behind it the ExApp "{APP_ID}" in a tunnel of its own; beside it a stand-in for Nextcloud',
                f"with the users user:user and admin:admin, {self.nextcloud.url}/login.",
                "",
                f"In a browser: {base}/hello/ is the ExApp's page, {admin}/ the status page.",
                "",
                *lines,
                "",
                "Requests, as they end (Ctrl-C ends it):",
            )
        )


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--port", type=port, default=8780, help="HTTP port on 127.0.0.1 (default: 8780)")
    parser.add_argument("--frp-port", type=port, default=8782, help="tunnel port on 127.0.0.1 (default: 8782)")
    parser.add_argument("--admin-port", type=port, default=8200, help="admin port on 127.0.0.1 (default: 8200)")


def main(options: argparse.Namespace) -> int:
    """Run the demonstration; return the exit code."""
    return run(Options(options.port, options.frp_port, options.admin_port))


def run(options: Options) -> int:
    """Serve the demonstration until INT or TERM; return the exit code."""
    hint = "Other ports: harp demo --port 9780 --frp-port 9782 --admin-port 9200"
    return serve_until_told(lambda: Demo(options), hint)
