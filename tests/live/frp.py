"""The stock frpc and frps beside us, as `make frp` builds them, and what a test needs around them."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from harp.net import certificates
from tests.live.peers import path_of
from tests.live.processes import PATIENCE, Process

BUILT = Path(__file__).parents[2] / ".cache" / "frp"
VERSIONS = ("0.52.3", "0.58.1", "0.61.1", "0.65.0", "0.70.1")
NEWEST = VERSIONS[-1]
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


def stop(*processes: Process) -> None:
    """End processes without waiting for good manners."""
    for process in processes:
        process.kill()


def remove(path: Path) -> None:
    """A whole directory."""
    shutil.rmtree(path)
