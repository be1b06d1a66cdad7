"""The stock frpc, in every release that ExApps and engines may have, on our tunnel server (F 11.15)."""

from __future__ import annotations

import asyncio
import gc
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from itertools import product as combinations
from pathlib import Path

import pytest

from tests.live import frp
from tests.live.frp import EXAPP_VERSION, NEWEST, VERSIONS, Gateway, Service, ended, start_frpc
from tests.live.peers import require
from tests.live.processes import PATIENCE
from tests.live.product import KEY
from tests.net.openssl_recipe import make_with_openssl

PORT = 23001
MANY = 400  # short connections
ABORTED = 60  # downloads
MEBIBYTE = 1048576
UNPAUSED = 100_000  # bytes that an asyncio.StreamReader takes without ever pausing its transport


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


@pytest.fixture(scope="module")
def openssl_certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("openssl", "openssl")
    directory = tmp_path_factory.mktemp("openssl") / "frp"
    make_with_openssl(directory)
    return directory


@pytest.fixture
async def plain() -> AsyncIterator[Gateway]:
    async with frp.gateway() as gateway:
        yield gateway


def exapp(
    gateway: Gateway, app: Service, more: Mapping[str, object] | None = None, *, name: str = "my_app", port: int = PORT
) -> str:
    """An ExApp's configuration for this gateway, with TLS as the gateway has it; `more` goes before that."""
    tls = frp.tls_of(gateway.certificates) if gateway.certificates else {"transport.tls.enable": False}
    return frp.exapp_toml(gateway.port, name, port, app.path, KEY, **{**tls, **(more or {})})


async def works(gateway: Gateway, app: Service, port: int = PORT, size: int = 1_000_000) -> None:
    """Bytes go both ways, and the ends of both sides arrive."""
    await frp.exchange(*await gateway.connect(port))
    assert await frp.ask(*await gateway.connect(port), b"down %d\n" % size) == bytes(size)
    assert await frp.ask(*await gateway.connect(port), b"up 500000\n" + bytes(500_000)) == b"500000\n"
    await frp.until(lambda: app.open == 0, "end of the connections at the service")


WIRES = [(version, "v1") for version in VERSIONS] + [(NEWEST, "v2")]
SECURITY = ("plain", "TLS without CA", "mutual TLS", "first byte")


@pytest.mark.parametrize(("wire", "security", "mux"), list(combinations(WIRES, SECURITY, (True, False))))
async def test_every_release_serves_an_app(
    directory: Path, app: Service, certs: Path, wire: tuple[str, str], security: str, mux: bool
) -> None:
    version, protocol = wire
    more: dict[str, object] = {"transport.tcpMux": mux}
    if protocol != "v1":
        more["transport.wireProtocol"] = protocol
    if security == "TLS without CA":
        more["transport.tls.enable"] = True
    if security == "first byte":
        more["transport.tls.disableCustomTLSFirstByte"] = False
    async with frp.gateway(certs if security in ("mutual TLS", "first byte") else None) as gateway:
        with ended(start_frpc(version, exapp(gateway, app, more), directory)):
            await works(gateway, app, size=1_000_000 if mux or security == "plain" else UNPAUSED)
            (facts,) = gateway.server.facts() if gateway.server else []
            assert (facts.mux, facts.wire, facts.version) == (mux, int(protocol[1:]), version)


@pytest.mark.skipif(
    metadata.version("uvloop").startswith("0.23."),
    reason="its TLS may drop what a paused reader has not read: uvloop PR 661",
)
async def test_a_slow_reader_gets_everything_also_without_multiplexing(
    directory: Path, app: Service, certs: Path
) -> None:
    async with frp.gateway(certs) as gateway:
        with ended(start_frpc(EXAPP_VERSION, exapp(gateway, app, {"transport.tcpMux": False}), directory)):
            for _ in range(10):
                assert len(await frp.ask(*await gateway.connect(PORT), b"down 1000000\n")) == 1_000_000


@pytest.mark.parametrize("version", [EXAPP_VERSION, NEWEST])
async def test_certificates_of_the_openssl_recipe_serve_as_well(
    directory: Path, app: Service, openssl_certs: Path, version: str
) -> None:
    async with frp.gateway(openssl_certs) as gateway:
        with ended(start_frpc(version, exapp(gateway, app), directory)):
            await works(gateway, app)


@pytest.mark.parametrize("version", [EXAPP_VERSION, NEWEST])
async def test_the_file_that_an_exapps_entrypoint_writes_works(
    directory: Path, app: Service, certs: Path, version: str
) -> None:
    async with frp.gateway(certs) as gateway:
        file = f"""
serverAddr = "127.0.0.1"
serverPort = {gateway.port}
loginFailExit = false

transport.tls.enable = true
transport.tls.certFile = "{certs}/client.crt"
transport.tls.keyFile = "{certs}/client.key"
transport.tls.trustedCaFile = "{certs}/ca.crt"
transport.tls.serverName = "harp.nc"

metadatas.token = "{KEY}"

[[proxies]]
remotePort = {PORT}
type = "tcp"
name = "my_app"
[proxies.plugin]
type = "unix_domain_socket"
unixPath = "{app.path}"
"""
        with ended(start_frpc(version, file, directory)):
            await works(gateway, app)


async def test_an_engine_that_says_nothing_of_tls_reaches_a_server_without_it(
    directory: Path, app: Service, plain: Gateway
) -> None:
    """frpc uses TLS by default since 0.50, and the manual for engines leaves the line out (F 0)."""
    file = frp.exapp_toml(plain.port, "engine", 24001, app.path, KEY)
    assert "tls" not in file
    with ended(start_frpc(EXAPP_VERSION, file, directory)):
        await works(plain, app, 24001)


@pytest.mark.parametrize("count", [0, 5, 50])
async def test_a_client_may_hold_any_number_of_work_connections_ready(
    directory: Path, app: Service, plain: Gateway, count: int
) -> None:
    with ended(start_frpc(EXAPP_VERSION, exapp(plain, app, {"transport.poolCount": count}), directory)):
        await works(plain, app)
        connections = await asyncio.gather(*(plain.connect(PORT) for _ in range(20)))
        await asyncio.gather(*(frp.exchange(*connection) for connection in connections))


# Refusals, as an admin reads them in frpc's log


@pytest.mark.parametrize("version", [EXAPP_VERSION, NEWEST])
async def test_a_wrong_key_ends_a_client_that_may_end(
    directory: Path, app: Service, plain: Gateway, version: str
) -> None:
    file = exapp(plain, app, {"loginFailExit": True}).replace(KEY, "wrong")
    with ended(start_frpc(version, file, directory)) as frpc:
        assert await asyncio.to_thread(frpc.wait) == 1
        assert frp.REFUSAL in frpc.text()


@pytest.mark.parametrize("version", [EXAPP_VERSION, NEWEST])
@pytest.mark.parametrize(
    "more",
    [
        {"transport.tls.enable": False},
        {"transport.tls.certFile": "", "transport.tls.keyFile": ""},
    ],
    ids=["without TLS", "without certificate"],
)
async def test_a_client_without_a_certificate_gets_nowhere_where_one_is_required(
    directory: Path, app: Service, certs: Path, version: str, more: dict[str, object]
) -> None:
    async with frp.gateway(certs) as gateway:
        with ended(start_frpc(version, exapp(gateway, app, {"loginFailExit": True, **more}), directory)) as frpc:
            assert await asyncio.to_thread(frpc.wait) == 1
        assert gateway.ports.items() == []


@pytest.mark.parametrize(
    ("name", "port", "words"),
    [
        ("my_app", 23002, "proxy [my_app] already exists"),
        ("other", PORT, "port already used"),
        ("other", 8080, "port not allowed"),
        ("other", 24000, "port not allowed"),
    ],
)
async def test_what_cannot_be_claimed_is_refused_in_frps_words(
    directory: Path, app: Service, plain: Gateway, name: str, port: int, words: str
) -> None:
    with ended(start_frpc(EXAPP_VERSION, exapp(plain, app), directory)):
        await works(plain, app)
        with ended(start_frpc(EXAPP_VERSION, exapp(plain, app, name=name, port=port), directory, "second")) as second:
            await frp.until(lambda: words in second.text(), words)
        await works(plain, app)


async def test_a_client_has_one_port(directory: Path, app: Service, plain: Gateway) -> None:
    second = f'[[proxies]]\nname = "more"\ntype = "tcp"\nremotePort = 23002\nlocalPort = {plain.port}\n'
    with ended(start_frpc(EXAPP_VERSION, exapp(plain, app) + second, directory)) as frpc:
        await frp.until(lambda: "exceed the max_ports_per_client" in frpc.text(), "refusal")
        await frp.until(lambda: len(plain.ports.items()) == 1, "the other port")


# Coming back


@pytest.mark.parametrize("version", [EXAPP_VERSION, NEWEST])
@pytest.mark.parametrize("mux", [True, False])
async def test_clients_come_back_when_the_server_was_restarted(
    directory: Path, app: Service, certs: Path, version: str, mux: bool
) -> None:
    async with frp.gateway(certs) as gateway:
        with ended(start_frpc(version, exapp(gateway, app, {"transport.tcpMux": mux}), directory)):
            await works(gateway, app, size=UNPAUSED)
            await gateway.stop()
            assert gateway.ports.items() == []
            await gateway.start()
            await works(gateway, app, size=UNPAUSED)


@pytest.mark.parametrize("version", [EXAPP_VERSION, NEWEST])
async def test_a_killed_client_leaves_its_port_to_its_successor(
    directory: Path, app: Service, plain: Gateway, version: str
) -> None:
    file = exapp(plain, app)
    for _ in range(3):
        with ended(start_frpc(version, file, directory)):
            await works(plain, app)
        await frp.until(lambda: plain.ports.items() == [], "release of the port", 2)


@pytest.mark.parametrize("version", [EXAPP_VERSION, NEWEST])
@pytest.mark.parametrize("mux", [True, False])
async def test_transfers_end_at_once_when_their_client_is_killed(
    directory: Path, app: Service, plain: Gateway, version: str, mux: bool
) -> None:
    with ended(start_frpc(version, exapp(plain, app, {"transport.tcpMux": mux}), directory)) as frpc:
        connections = [await plain.connect(PORT) for _ in range(5)]
        for reader, writer in connections:
            writer.write(b"down 1000000000\n")
            await reader.readexactly(100_000)
        frpc.kill()
        for reader, writer in connections:
            with suppress(ConnectionError):
                async with asyncio.timeout(2):
                    assert len(await reader.read(-1)) < 100_000_000
            writer.close()
        await frp.until(lambda: plain.ports.items() == [] and app.open == 0, "end of everything", 2)


@pytest.mark.parametrize("version", [EXAPP_VERSION, NEWEST])
async def test_a_client_that_went_silent_loses_its_port_to_its_successor_within_seconds(
    directory: Path, app: Service, plain: Gateway, version: str
) -> None:
    """A host that lost its power: no FIN ever comes. frps would refuse the successor for 40 s (F 5.3)."""
    file = exapp(plain, app)
    with ended(start_frpc(version, file, directory)) as silent:
        await works(plain, app)
        (first,) = plain.ports.items()
        silent.signal(signal.SIGSTOP)
        with ended(start_frpc(version, file, directory, "successor")):
            await frp.until(lambda: plain.ports.items() not in ([], [first]), "successor", 10)
            await works(plain, app)


@pytest.mark.parametrize("version", [EXAPP_VERSION, NEWEST])
async def test_a_client_that_lost_its_connection_replaces_its_own_half_open_session(
    directory: Path, app: Service, plain: Gateway, version: str
) -> None:
    """NAT tables forget: the client sees a reset and comes back at once, the server has seen nothing."""
    async with frp.HalfOpen(plain.port) as between:
        with ended(start_frpc(version, exapp(plain, app, {"serverPort": between.port}), directory)):
            await works(plain, app)
            (first,) = plain.ports.items()
            between.reset_clients()
            await frp.until(lambda: plain.ports.items() not in ([], [first]), "new session", 10)
            await works(plain, app)
            assert plain.server is not None
            assert len(plain.server.facts()) == 1


# Services that are away, and hard use


@pytest.mark.parametrize("version", [EXAPP_VERSION, NEWEST])
async def test_an_app_that_is_not_there_yet_can_be_reached_as_soon_as_it_is(
    directory: Path, app: Service, plain: Gateway, version: str
) -> None:
    """frpc <= 0.67 keeps the stream open in silence, newer ones close it (F 5.6)."""
    await app.stop()
    with ended(start_frpc(version, exapp(plain, app), directory)):
        for _ in range(5):
            reader, writer = await plain.connect(PORT)
            writer.write(b"echo\n")
            if version == EXAPP_VERSION:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(reader.read(), 0.1)
            else:
                assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
            writer.close()
        await app.start()
        await works(plain, app)


@pytest.mark.parametrize("wire", [(EXAPP_VERSION, "v1"), (NEWEST, "v2")])
@pytest.mark.parametrize("mux", [True, False])
async def test_many_short_connections_leave_nothing_behind(
    directory: Path, app: Service, certs: Path, wire: tuple[str, str], mux: bool
) -> None:
    more = {"transport.tcpMux": mux, **({"transport.wireProtocol": "v2"} if wire[1] == "v2" else {})}
    async with frp.gateway(certs) as gateway:
        with ended(start_frpc(wire[0], exapp(gateway, app, more), directory)) as frpc:
            await works(gateway, app, size=UNPAUSED)
            await frp.until(lambda: gateway.streams() <= 3, "rest")
            before = gateway.streams(), frpc.descriptors()

            async def short() -> None:
                for _ in range(MANY // 20):
                    assert await frp.ask(*await gateway.connect(PORT), b"down 10\n") == bytes(10)

            await asyncio.gather(*(short() for _ in range(20)))
            await frp.until(lambda: app.open == 0, "end of the connections")
            pool = 16  # frps's own pool may grow to pool_count + 10 under load
            await frp.until(lambda: gateway.streams() <= before[0] + pool, "end of the streams")
            await frp.until(lambda: frpc.descriptors() <= before[1] + pool, "end of frpc's connections")


@pytest.mark.parametrize("wire", [(EXAPP_VERSION, "v1"), (NEWEST, "v1"), (NEWEST, "v2")])
async def test_aborted_downloads_free_their_streams_and_memory(
    directory: Path, app: Service, certs: Path, wire: tuple[str, str]
) -> None:
    """frps 0.70.0 grows with each (F 8.3)."""
    more = {"transport.wireProtocol": "v2"} if wire[1] == "v2" else {}
    async with frp.gateway(certs) as gateway:
        with ended(start_frpc(wire[0], exapp(gateway, app, more), directory)):

            async def abort_downloads(count: int) -> None:
                for number in range(count):
                    reader, writer = await gateway.connect(PORT)
                    writer.write(b"down 100000000\n")
                    await reader.readexactly(100_000)
                    if number % 2:
                        writer.transport.abort()
                    else:
                        writer.close()
                await frp.until(lambda: app.open == 0, "end of the downloads")

            await abort_downloads(ABORTED // 4)
            gc.collect()
            before = frp.resident()
            await abort_downloads(ABORTED)
            gc.collect()
            assert frp.resident() - before < 16 * MEBIBYTE
            await frp.until(lambda: gateway.streams() <= 16, "end of the streams")
            await works(gateway, app)


async def test_a_user_that_does_not_read_holds_up_nobody_else(directory: Path, app: Service, plain: Gateway) -> None:
    with ended(start_frpc(EXAPP_VERSION, exapp(plain, app), directory)):
        slow = [await plain.connect(PORT) for _ in range(8)]
        for reader, writer in slow:
            writer.write(b"down 50000000\n")
            await reader.readexactly(1)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(10):
            await works_beside(plain, app, len(slow))
        for _, writer in slow:
            writer.transport.abort()


async def works_beside(gateway: Gateway, app: Service, others: int) -> None:
    """A connection works while `others` stay open."""
    await frp.exchange(*await gateway.connect(PORT))
    await frp.until(lambda: app.open == others, "end of the connection at the service")
