"""Our own tunnel client on stock frps of every release, and on our own server (F 10)."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import product as combinations
from pathlib import Path

import pytest

from harp.tunnel.client import frpc_config
from harp.tunnel.client.client import TunnelClient
from tests.live import frp
from tests.live.frp import NEWEST, VERSIONS, Service
from tests.live.peers import require
from tests.live.processes import PATIENCE, Process, free_port, listening
from tests.live.product import KEY
from tests.net.openssl_recipe import make_with_openssl

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short enough for a unix socket's path."""
    with tempfile.TemporaryDirectory(prefix="harp-frp-") as path:
        yield Path(path)


@pytest.fixture
async def app(directory: Path) -> AsyncIterator[Service]:
    async with frp.service(directory) as service:
        yield service


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return frp.make_certificates(tmp_path_factory.mktemp("certs"))


class Frps:
    """A stock frps that keeps its port over restarts; `remote` is a port that it may offer."""

    def __init__(self, version: str, directory: Path, settings: Mapping[str, object] | None = None) -> None:
        self.port, self.remote = free_port(), free_port()
        self._version = version
        self._directory = directory
        self._settings = {"bindAddr": "127.0.0.1", "bindPort": self.port, **(settings or {})}
        self._process: Process | None = None

    async def start(self) -> None:
        """Run, and wait until it listens."""
        self._process = frp.start_frps(self._version, self._settings, self._directory)
        await frp.until(lambda: listening(self.port), "frps")

    def kill(self) -> None:
        """End it without a farewell; harmless when there is none to start."""
        if self._process is not None:
            self._process.kill()

    async def connect(self) -> Connection:
        """To the port that frps offers for the client."""
        return await asyncio.open_connection("127.0.0.1", self.remote)


@contextmanager
def running(frps: Frps) -> Iterator[Frps]:
    """Killed at the end of the block."""
    try:
        yield frps
    finally:
        frps.kill()


def client(app: Service, port: int, remote: int, more: Mapping[str, object] | None = None) -> TunnelClient:
    """Our client with an ExApp's configuration; no TLS unless `more` says so."""
    keys = {"transport.tls.enable": False, **(more or {})}
    return TunnelClient(frpc_config.parse(frp.exapp_toml(port, "my_app", remote, app.path, KEY, **keys), {}))


@asynccontextmanager
async def connected(client: TunnelClient) -> AsyncIterator[asyncio.Task[int]]:
    """The client runs, with all its ports, inside the block."""
    task = asyncio.create_task(client.run())
    try:
        async with asyncio.timeout(PATIENCE):
            await client.ready.wait()
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def works(connect: Callable[[], Awaitable[Connection]], app: Service) -> None:
    """Bytes go both ways, and the ends of both sides arrive."""
    await frp.exchange(*await connect())
    assert await frp.ask(*await connect(), b"down 1000000\n") == bytes(1_000_000)
    assert await frp.ask(*await connect(), b"up 500000\n" + bytes(500_000)) == b"500000\n"
    await frp.until(lambda: app.open == 0, "end of the connections at the service")


def server_tls(directory: Path) -> dict[str, object]:
    """frps as HaRP configures it today: mutual TLS."""
    return {
        "transport.tls.force": True,
        "transport.tls.certFile": str(directory / "server.crt"),
        "transport.tls.keyFile": str(directory / "server.key"),
        "transport.tls.trustedCaFile": str(directory / "ca.crt"),
    }


WIRES = [(version, "v1") for version in VERSIONS] + [(NEWEST, "v2")]
SECURITY = ("plain", "TLS without CA", "mutual TLS", "first byte")


@pytest.mark.parametrize(("wire", "security", "mux"), list(combinations(WIRES, SECURITY, (True, False))))
async def test_a_stock_frps_of_every_release_serves_our_client(
    directory: Path, app: Service, certs: Path, wire: tuple[str, str], security: str, mux: bool
) -> None:
    version, protocol = wire
    more: dict[str, object] = {"transport.tcpMux": mux, "transport.wireProtocol": protocol}
    settings: dict[str, object] = {"transport.tcpMux": mux}
    if security in ("mutual TLS", "first byte"):
        more.update(frp.tls_of(certs))
        settings.update(server_tls(certs))
    if security == "TLS without CA":
        more["transport.tls.enable"] = True
    if security == "first byte":
        more["transport.tls.disableCustomTLSFirstByte"] = False
    with running(Frps(version, directory, settings)) as frps:
        await frps.start()
        async with connected(client(app, frps.port, frps.remote, more)):
            await works(frps.connect, app)


@pytest.mark.parametrize("protocol", ["v1", "v2"])
@pytest.mark.parametrize("mux", [True, False])
async def test_our_server_serves_our_client(
    directory: Path, app: Service, certs: Path, protocol: str, mux: bool
) -> None:
    more = {**frp.tls_of(certs), "transport.wireProtocol": protocol, "transport.tcpMux": mux}
    async with frp.gateway(certs) as gateway, connected(client(app, gateway.port, 23001, more)):
        await frp.exchange(*await gateway.connect(23001))
        assert await frp.ask(*await gateway.connect(23001), b"down 100000\n") == bytes(100_000)
        assert await frp.ask(*await gateway.connect(23001), b"up 500000\n" + bytes(500_000)) == b"500000\n"


async def test_certificates_of_the_openssl_recipe_serve_our_client(directory: Path, app: Service) -> None:
    """Their names make the server's certificate look as if it had signed itself (F 1.2)."""
    require("openssl", "openssl")
    made = directory / "certs"
    make_with_openssl(made)
    async with frp.gateway(made) as gateway, connected(client(app, gateway.port, 23001, frp.tls_of(made))):
        await frp.exchange(*await gateway.connect(23001))


@pytest.mark.parametrize("wire", [("0.61.1", "v1"), (NEWEST, "v1"), (NEWEST, "v2")])
@pytest.mark.parametrize("mux", [True, False])
async def test_a_token_and_its_scopes_are_proved(
    directory: Path, app: Service, wire: tuple[str, str], mux: bool
) -> None:
    auth: dict[str, object] = {"auth.token": "secret", "auth.additionalScopes": ["HeartBeats", "NewWorkConns"]}
    auth["transport.tcpMux"] = mux
    more = {
        **auth,
        "transport.wireProtocol": wire[1],
        "transport.heartbeatInterval": 1,
        "transport.heartbeatTimeout": 2,
    }
    with running(Frps(wire[0], directory, auth)) as frps:
        await frps.start()
        async with connected(client(app, frps.port, frps.remote, more)) as task:
            await works(frps.connect, app)
            await asyncio.sleep(2.6)  # real time: a refused Ping, or none, would have ended the session by now
            assert not task.done()
            await works(frps.connect, app)


async def test_a_refused_login_ends_a_client_that_may_end(directory: Path, app: Service) -> None:
    with running(Frps("0.61.1", directory, {"auth.token": "secret"})) as frps:
        await frps.start()
        assert await client(app, frps.port, frps.remote, {"loginFailExit": True}).run() == 1


async def test_a_server_that_is_not_there_ends_a_client_that_may_end(directory: Path, app: Service) -> None:
    assert await client(app, free_port(), 23001, {"loginFailExit": True}).run() == 1


async def test_a_client_that_may_not_end_waits_for_its_server(directory: Path, app: Service) -> None:
    frps = Frps("0.61.1", directory)
    late = client(app, frps.port, frps.remote)
    task = asyncio.create_task(late.run())
    await asyncio.sleep(0.2)  # real time: the first attempt has failed
    with running(frps):
        await frps.start()
        async with asyncio.timeout(PATIENCE):
            await late.ready.wait()
        await works(frps.connect, app)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"transport.tls.serverName": "other.nc"}, "certificate"),
        ({"transport.tls.trustedCaFile": "/nonexistent/ca.crt"}, "trustedCaFile /nonexistent/ca.crt: No such file"),
        ({"transport.tls.certFile": "", "transport.tls.keyFile": ""}, "reason="),
    ],
    ids=["wrong name", "no CA file", "no certificate"],
)
async def test_what_is_wrong_with_tls_is_told(
    directory: Path, app: Service, certs: Path, more: dict[str, object], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(Frps("0.61.1", directory, server_tls(certs))) as frps:
        await frps.start()
        refused = client(app, frps.port, frps.remote, {**frp.tls_of(certs), **more, "loginFailExit": True})
        assert await refused.run() == 1
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("wire", [("0.61.1", "v1"), (NEWEST, "v1"), (NEWEST, "v2")])
@pytest.mark.parametrize("mux", [True, False])
async def test_our_client_comes_back_when_frps_was_killed(
    directory: Path, app: Service, wire: tuple[str, str], mux: bool
) -> None:
    more = {"transport.tcpMux": mux, "transport.wireProtocol": wire[1]}
    with running(Frps(wire[0], directory, {"transport.tcpMux": mux})) as frps:
        await frps.start()
        tunnel = client(app, frps.port, frps.remote, more)
        async with connected(tunnel):
            await works(frps.connect, app)
            frps.kill()
            await frp.until(lambda: not tunnel.ready.is_set(), "loss")
            await frps.start()
            async with asyncio.timeout(PATIENCE):
                await tunnel.ready.wait()
            await works(frps.connect, app)


@pytest.mark.parametrize("version", ["0.61.1", NEWEST])  # 0.65 to 0.70.0 need 40 s for it (F 5.7)
async def test_a_cut_connection_is_replaced_with_the_same_run_id(directory: Path, app: Service, version: str) -> None:
    """frps still holds name and port; only the run id proves that they are ours."""
    with running(Frps(version, directory)) as frps:
        await frps.start()
        async with frp.HalfOpen(frps.port) as between:
            tunnel = client(app, between.port, frps.remote)
            async with connected(tunnel):
                await works(frps.connect, app)
                between.reset_clients()
                await frp.until(lambda: between.connections == 2, "second connection")
                async with asyncio.timeout(PATIENCE):
                    await tunnel.ready.wait()
                await works(frps.connect, app)


async def test_a_service_that_is_away_ends_the_connection_at_once(directory: Path, app: Service) -> None:
    await app.stop()
    with running(Frps("0.61.1", directory)) as frps:
        await frps.start()
        async with connected(client(app, frps.port, frps.remote)):
            for _ in range(20):
                with suppress(ConnectionResetError):  # frps has not read what we sent
                    assert await frp.ask(*await frps.connect(), b"echo\n") == b""
            await app.start()
            await works(frps.connect, app)


async def test_many_connections_at_once_are_served(directory: Path, app: Service, certs: Path) -> None:
    with running(Frps(NEWEST, directory, server_tls(certs))) as frps:
        await frps.start()
        async with connected(client(app, frps.port, frps.remote, frp.tls_of(certs))):
            for _ in range(5):
                connections = await asyncio.gather(*(frps.connect() for _ in range(40)))
                await asyncio.gather(*(frp.exchange(*connection, 50_000) for connection in connections))
            await frp.until(lambda: app.open == 0, "end of the connections")


async def test_a_user_that_gives_up_ends_the_services_work(directory: Path, app: Service, certs: Path) -> None:
    with running(Frps(NEWEST, directory)) as frps:
        await frps.start()
        async with connected(client(app, frps.port, frps.remote)):
            for _ in range(20):
                reader, writer = await frps.connect()
                writer.write(b"down 100000000\n")
                await reader.readexactly(1000)
                writer.transport.abort()
            await frp.until(lambda: app.open == 0, "end of the downloads")
            await works(frps.connect, app)
