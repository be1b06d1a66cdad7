"""`harp dev NAME --gateway HOST`: a program on this machine is an ExApp of a real Nextcloud, over a tunnel to its HaRP.

Our tunnel client connects to a tap, and the tap to the program: it shows the requests that HaRP has let through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from harp.commands.parts import Parts
from harp.commands.tap import Tap
from harp.commands.watching import cancelled
from harp.errors import SettingsError, Unreachable
from harp.net.targets import Tcp, Unix
from harp.policy.ports import EXAPP_PORTS, SERVER_NAME
from harp.settings.parsers import shared_key_file
from harp.settings.reader import Fault
from harp.status.feed import Watcher
from harp.status.snapshot import RequestLine
from harp.tunnel.client.client import TunnelClient
from harp.tunnel.client.frpc_config import ClientConfig, ClientProxy, ClientTls

CONNECTED = 15.0  # seconds for login and claim
FILES = ("ca.crt", "client.crt", "client.key")


@dataclass(frozen=True, slots=True)
class FarGateway:
    """Where the real HaRP accepts tunnels, and the identity to use."""

    server: Tcp
    port: int  # of the ExApp, as Nextcloud knows it
    key: str = field(repr=False)
    certificates: Path | None = None  # None = without TLS


class DevTunnel(Parts):
    """One program behind a HaRP elsewhere. Use it as `async with`."""

    def __init__(self, app_id: str, host: str, to: int, gateway: FarGateway) -> None:
        super().__init__()
        self._app_id, self._host, self._to = app_id, host, to
        self._gateway = gateway
        self._watchers: set[Watcher] = set()

    @property
    def feed(self) -> Self:
        """The feed of its requests."""
        return self

    @contextmanager
    def watched(self) -> Iterator[Watcher]:
        """Watch the requests inside the block."""
        watcher = Watcher("")
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    async def _start(self) -> None:
        socket = Path(self._stack.enter_context(TemporaryDirectory(prefix="harp-dev-"))) / "tap.sock"
        tap = Tap(self._app_id, self._host, self._to, self._noted)
        await tap.start(socket)
        self._stack.callback(tap.close)
        client = TunnelClient(self._configuration(socket))
        running = asyncio.create_task(client.run())
        self._stack.push_async_callback(cancelled, running)
        ready = asyncio.create_task(client.ready.wait())
        self._stack.push_async_callback(cancelled, ready)
        await asyncio.wait((running, ready), timeout=CONNECTED, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            where = f"{self._gateway.server.host}:{self._gateway.server.port}"
            tls = "" if self._gateway.certificates else "; it may want TLS: name its certificates with --certs"
            raise Unreachable(f"{where} offers no tunnel for port {self._gateway.port}, for the reason above{tls}")

    def _configuration(self, socket: Path) -> ClientConfig:
        gateway, directory = self._gateway, self._gateway.certificates
        tls = None
        if directory is not None:
            ca, certificate, key = (str(directory / file) for file in FILES)
            tls = ClientTls(ca, certificate, key, server_name=SERVER_NAME)
        proxies = (ClientProxy(self._app_id, gateway.port, Unix(str(socket))),)
        return ClientConfig(gateway.server, proxies, tls, metas={"token": gateway.key})

    def _noted(self, line: RequestLine) -> None:
        for watcher in self._watchers:
            watcher.put(line)

    def text(self) -> str:
        """Return how to reach the program, for people."""
        gateway = self._gateway
        return "\n".join(
            (
                f"/exapps/{self._app_id}/ of your Nextcloud leads to {self._host}:{self._to}, through the tunnel to "
                f"{gateway.server.host}:{gateway.server.port}.",
                "Who may use it is what Nextcloud says. Give the program the APP_SECRET that Nextcloud knows.",
                "",
                "Requests, as they end (Ctrl-C ends it):",
            )
        )


def far_gateway(server: Tcp, port: int | None, certificates: Path | None, env: Mapping[str, str]) -> FarGateway:
    """Combine options and environment. Raises SettingsError with every problem."""
    problems = []
    key, file = env.get("HP_SHARED_KEY", ""), env.get("HP_SHARED_KEY_FILE", "")
    if file and not key:
        try:
            key = shared_key_file(file, lambda note: None)
        except Fault as fault:
            problems.append(f"HP_SHARED_KEY_FILE: {fault}")
    elif not key:
        problems.append("HP_SHARED_KEY is not set; set it (or HP_SHARED_KEY_FILE) to the key of that HaRP")
    text = env.get("APP_PORT", "") if port is None else str(port)
    found = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if found not in EXAPP_PORTS:
        problems.append(
            f"--app-port (or APP_PORT) has to be the port of the ExApp in Nextcloud, from {EXAPP_PORTS[0]} to "
            f"{EXAPP_PORTS[-1]}; `harp apps` shows it where that HaRP runs"
        )
    missing = [name for name in FILES if certificates is not None and not (certificates / name).is_file()]
    if missing:
        problems.append(f"--certs: {certificates} has no {', '.join(missing)}; copy them from HP_CERTS_DIR/frp")
    if problems:
        raise SettingsError(problems)
    return FarGateway(server, found, key, certificates)
