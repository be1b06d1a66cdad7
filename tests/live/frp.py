"""The stock frpc and frps beside us, as `make frp` builds them, and what a test needs around them."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from harp.net import certificates
from harp.net.deadlines import Deadlines
from harp.net.ports import PortTable
from harp.settings import load
from harp.tunnel.server.group import TunnelGroup
from harp.tunnel.server.listener import Admit, TunnelServer
from tests.live.peers import path_of
from tests.live.processes import PATIENCE, Process, free_port
from tests.live.product import KEY

BUILT = Path(__file__).parents[2] / ".cache" / "frp"
VERSIONS = ("0.52.3", "0.58.1", "0.61.1", "0.65.0", "0.70.1")
NEWEST = VERSIONS[-1]
REFUSAL = "send Login request to plugin error"  # what clients have always read for a wrong key (F 3.1)
EXAPP_VERSION = "0.61.1"  # what ExApp images have (A 8.2)


def frpc(version: str) -> str:
    """Path of the client; skips, or fails in CI, where it is not built."""
    return path_of(f"frp {version}", str(BUILT / version / "frpc"))


def frps(version: str) -> str:
    """Path of the server; skips, or fails in CI, where it is not built."""
    return path_of(f"frp {version}", str(BUILT / version / "frps"))


def toml(values: dict[str, object]) -> str:
    """Dotted keys and values as TOML; JSON's strings, numbers and booleans are TOML's."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def tls_of(directory: Path) -> dict[str, object]:
    """frpc's lines for mutual TLS with the certificates of `directory`, as an ExApp writes them (A 8.1)."""
    return {
        "transport.tls.enable": True,
        "transport.tls.certFile": str(directory / "client.crt"),
        "transport.tls.keyFile": str(directory / "client.key"),
        "transport.tls.trustedCaFile": str(directory / "ca.crt"),
        "transport.tls.serverName": "harp.nc",
    }


def exapp_toml(port: int, name: str, remote_port: int, socket_path: Path, token: str, **more: object) -> str:
    """frpc's configuration in an ExApp (A 8.1). `more`: further keys, with "__" in place of dots."""
    top: dict[str, object] = {
        "serverAddr": "127.0.0.1",
        "serverPort": port,
        "loginFailExit": False,
        "metadatas.token": token,
    }
    top.update({key.replace("__", "."): value for key, value in more.items()})
    proxy = {
        "name": name,
        "type": "tcp",
        "remotePort": remote_port,
        "plugin.type": "unix_domain_socket",
        "plugin.unixPath": str(socket_path),
    }
    return f"{toml(top)}\n[[proxies]]\n{toml(proxy)}"


def start_frpc(version: str, configuration: str, directory: Path, name: str = "frpc") -> Process:
    """A running frpc with its configuration and log in `directory`. The caller ends it."""
    path = directory / f"{name}.toml"
    path.write_text(configuration)
    return Process([frpc(version), "-c", str(path)], directory / f"{name}.log", env={})


def start_frps(version: str, settings: dict[str, object], directory: Path) -> Process:
    """A running frps. The caller ends it."""
    path = directory / "frps.toml"
    path.write_text(toml(settings))
    return Process([frps(version), "-c", str(path)], directory / "frps.log", env={})


def make_certificates(directory: Path) -> Path:
    """Our own certificates."""
    certificates.ensure(directory, 30, datetime.now(UTC))
    return directory


async def until(true: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
    """Wait for something that no event tells, while the loop goes on."""
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, f"no {what} in {timeout:g} s"
        await asyncio.sleep(0.01)


class Service:
    """A small ExApp on a unix socket. A connection's first line says what it does:

    `echo`: send back what comes, until the peer ends. `down N`: send N bytes and end. `up N`: read N bytes, answer
    `N\n`, end. `drop`: end at once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections = 0
        self.open = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; a stale socket file is replaced."""
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def stop(self) -> None:
        """Stop listening and remove the socket file."""
        if self._server is not None:
            self._server.close()
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            await self._obey((await reader.readline()).split(), reader, writer)
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _obey(self, order: list[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match order:
            case [b"echo"]:
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
            case [b"down", size]:
                left = int(size)
                while left:
                    part = bytes(min(left, 65536))
                    writer.write(part)
                    await writer.drain()
                    left -= len(part)
            case [b"up", size]:
                left = int(size)
                while left:
                    data = await reader.read(min(left, 65536))
                    if not data:
                        return
                    left -= len(data)
                writer.write(size + b"\n")
                await writer.drain()


@asynccontextmanager
async def service(directory: Path) -> AsyncIterator[Service]:
    """A running Service on a socket in `directory`, which must have a short path."""
    running = Service(directory / "app.sock")
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


class Gateway:
    """Our tunnel server in this process, on a port of its own that it keeps over restarts.

    With `certificates` it insists on mutual TLS; without, TLS is an offer (A 7.1, HP_FRP_DISABLE_TLS).
    """

    def __init__(self, certificates_in: Path | None = None) -> None:
        self.port = free_port()
        self.certificates = certificates_in
        self.ports = PortTable()
        self.server: TunnelServer | None = None
        self._deadlines: Deadlines | None = None

    async def start(self) -> None:
        """Listen."""
        settings = load(
            {
                "HP_SHARED_KEY": KEY,
                "NC_INSTANCE_URL": "http://127.0.0.1:1",
                "HP_FRP_ADDRESS": f"127.0.0.1:{self.port}",
                "HP_FRP_DISABLE_TLS": "false" if self.certificates else "true",
            }
        )
        tls = certificates.server_context(self.certificates) if self.certificates else None
        self._deadlines = Deadlines()
        group = TunnelGroup(settings, self.ports, self._deadlines)
        self.server = TunnelServer(settings, [group], self._deadlines, _by_key(group), tls)
        await self.server.start()

    async def stop(self) -> None:
        """End all tunnels and stop listening."""
        assert self.server is not None
        assert self._deadlines is not None
        await self.server.close()
        self._deadlines.close()

    def streams(self) -> int:
        """Open streams of all tunnels."""
        assert self.server is not None
        return sum(facts.streams for facts in self.server.facts())

    async def connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the service behind a tunnel port, as soon as there is a tunnel."""
        offer = await self.ports.wait(port, PATIENCE)
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await offer.connect(lambda: protocol)
        return reader, asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())


def _by_key(group: TunnelGroup) -> Admit:
    def admit(address: str, token: str) -> TunnelGroup | str:
        assert address == "127.0.0.1"
        return group if token == KEY else REFUSAL

    return admit


@asynccontextmanager
async def gateway(certificates_in: Path | None = None) -> AsyncIterator[Gateway]:
    """A running Gateway."""
    running = Gateway(certificates_in)
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


@contextmanager
def ended(process: Process) -> Iterator[Process]:
    """The process is killed at the end of the block, without waiting for good manners."""
    try:
        yield process
    finally:
        process.kill()


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int = 300_000) -> None:
    """Prove that a connection to a Service carries bytes both ways: `size` bytes of its echo."""
    sent = bytes(range(256)) * (size // 256)
    writer.write(b"echo\n" + sent)
    async with asyncio.timeout(PATIENCE):
        assert await reader.readexactly(len(sent)) == sent
    writer.close()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    """All that the service answers until it ends."""
    writer.write(request)
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read(-1)
    writer.close()
    return answer


class HalfOpen:
    """A TCP relay whose client sides can be reset while the server notices nothing."""

    def __init__(self, server_port: int) -> None:
        self.port = free_port()
        self.connections = 0
        self._server_port = server_port
        self._listener: asyncio.Server | None = None
        self._clients: list[asyncio.StreamWriter] = []
        self._servers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self._listener.close()
        self.reset_clients()
        for writer in self._servers:
            writer.transport.abort()

    def reset_clients(self) -> None:
        """Cut off every client."""
        for writer in self._clients:
            writer.transport.abort()
        self._clients.clear()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
        self.connections += 1
        self._clients.append(writer)
        self._servers.append(to_server)
        await asyncio.gather(_pump(reader, to_server), _pump(from_server, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, RuntimeError):  # uvloop raises the latter for a closed transport
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


def resident() -> int:
    """Memory of this process in bytes, what is shared included."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
