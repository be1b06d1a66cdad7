"""Start, stop, restart, reload, and life in narrow places."""

from __future__ import annotations

import asyncio
import http.client
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
import trustme

from tests.fakes.environment import bare
from tests.live.peers import do_without
from tests.live.processes import Process, free_port, listening
from tests.live.product import HARP, KEY, Product, running
from tests.live.tunnels import OWN, SHIPPED, start_tunnel
from tests.live.wire import Client
from tests.live.world import TUNNEL_PORT, World

CONTROL = {"harp_shared_key": KEY}
WEBSOCKET = (
    b"GET /exapps/direct/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture
def fresh(world: World, tmp_path: Path) -> Iterator[Product]:
    """A product of the test's own, not started yet."""
    product = Product(tmp_path / "harp", world.nextcloud)
    yield product
    if product.started and product.process.running:
        product.process.kill()


def test_it_answers_within_moments_of_its_start(fresh: Product) -> None:
    assert fresh.start() < 10  # makes its certificates
    assert fresh.status("/exapps/app_api/heartbeat", **CONTROL) == 200
    assert fresh.stop() == 0
    assert fresh.start() < 5
    assert fresh.stop() == 0


@pytest.mark.parametrize("nextcloud", ["http://nextcloud.invalid", "http://192.0.2.1", "https://127.0.0.1:9"])
def test_a_nextcloud_that_cannot_be_reached_does_not_delay_the_start(nextcloud: str, tmp_path: Path) -> None:
    with running(tmp_path, nextcloud) as product:
        began = time.monotonic()
        assert product.status("/exapps/app_api/heartbeat", **CONTROL) == 200
        assert product.status("/exapps/app_api/info", **CONTROL) == 200
        assert time.monotonic() - began < 5


def test_a_nextcloud_that_cannot_be_reached_costs_no_known_exapp(world: World, tmp_path: Path) -> None:
    with running(tmp_path, "http://nextcloud.invalid") as product:
        product.register("pushed", "127.0.0.1", world.direct_port)
        assert product.status("/exapps/pushed/heartbeat", **CONTROL) != 503
        assert product.status("/exapps/pushed/public") == 401  # the ExApp's own answer: it is called "direct" there


async def test_term_lets_a_running_request_finish(fresh: Product) -> None:
    await asyncio.to_thread(fresh.start)
    async with await Client.connect(fresh.http) as client:
        await client.send(b"GET /exapps/direct/sse?interval=0.5&count=4 HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.reader.readuntil(b"data: hello 1\n")
        fresh.process.signal(signal.SIGTERM)
        rest = await client.rest()
    assert b"data: hello 4\n" in rest
    assert await asyncio.to_thread(fresh.process.wait) == 0


async def test_term_stops_new_connections_and_ends_idle_ones(fresh: Product) -> None:
    await asyncio.to_thread(fresh.start)
    async with await Client.connect(fresh.http) as idle, await Client.connect(fresh.http) as busy:
        await idle.send(b"GET /exapps/direct/public HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await idle.answer()).status == 200
        await busy.send(b"GET /exapps/direct/sse?interval=1&count=3 HTTP/1.1\r\nHost: a\r\n\r\n")
        await busy.reader.readuntil(b"data: hello 1\n")
        fresh.process.signal(signal.SIGTERM)
        assert await idle.rest() == b""
        assert not listening(fresh.http)
        assert b"data: hello 3\n" in await busy.rest()
    assert await asyncio.to_thread(fresh.process.wait) == 0


async def test_term_closes_websockets_with_1001(fresh: Product) -> None:
    await asyncio.to_thread(fresh.start)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await Client.connect(fresh.http)) for _ in range(10)]
        for client in clients:
            await client.send(WEBSOCKET)
            assert (await client.answer()).status == 101
        fresh.process.signal(signal.SIGTERM)
        for client in clients:
            async with asyncio.timeout(10):
                assert await client.reader.readexactly(4) == b"\x88\x02\x03\xe9"  # a close frame with status 1001
            with suppress(ConnectionError):
                await client.send(b"\x88\x82\0\0\0\0\x03\xe9")  # its echo, masked
            assert await client.rest() == b""
    assert await asyncio.to_thread(fresh.process.wait) == 0


async def test_term_does_not_wait_for_ever(fresh: Product) -> None:
    fresh.environment["HP_TIMEOUT_DRAIN"] = "1s"
    await asyncio.to_thread(fresh.start)
    async with await Client.connect(fresh.http) as client:
        await client.send(b"GET /exapps/direct/sse?interval=3600 HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.reader.readuntil(b"data: hello 1\n")
        fresh.process.signal(signal.SIGTERM)
        assert await asyncio.to_thread(fresh.process.wait, 10) == 0


class Visitor(threading.Thread):
    """Asks for one page again and again; remembers when it asked and what came, 0 for no answer."""

    def __init__(self, product: Product, path: str) -> None:
        super().__init__(daemon=True)
        self._product, self._path = product, path
        self._leaving = threading.Event()
        self.answers: list[tuple[float, int]] = []

    def run(self) -> None:
        while not self._leaving.wait(0.01):
            asked = time.monotonic()
            self.answers.append((asked, self._product.status(self._path)))

    def leave(self) -> None:
        self._leaving.set()
        self.join(30)


def kill(product: Product) -> None:
    product.process.kill()


def stop(product: Product) -> None:
    assert product.stop() == 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("end", [stop, kill], ids=["TERM", "kill -9"])
@pytest.mark.parametrize("client", [OWN, SHIPPED], ids=["our client", f"frpc {SHIPPED}"])
def test_a_restart_under_traffic_is_over_in_moments(
    fresh: Product, world: World, client: str, end: Callable[[Product], None]
) -> None:
    fresh.start()
    with start_tunnel(fresh, client, "hello", TUNNEL_PORT, world.socket) as tunnel:
        fresh.process.until(lambda: fresh.status("/exapps/hello/public") == 200, "tunnel")
        visitors = [Visitor(fresh, path) for path in ("/exapps/direct/public", "/exapps/hello/public") * 2]
        for visitor in visitors:
            visitor.start()
        end(fresh)
        fresh.start()
        restarted = time.monotonic()
        # No answer but these: 0 while nobody listens, 503 while the tunnel client has not come back.
        for visitor in visitors:
            tunnel.until(lambda v=visitor: any(at > restarted and s == 200 for at, s in v.answers), "answer", 40)  # type: ignore[misc]
        for visitor in visitors:
            visitor.leave()
        assert {status for visitor in visitors for _, status in visitor.answers} <= {0, 200, 503}
        for visitor in visitors[::2]:  # the direct ones
            assert {status for at, status in visitor.answers if at > restarted} == {200}
    assert fresh.stop() == 0


def certificate(authority: trustme.CA, product: Product) -> None:
    """A new cert.pem, key and chain."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(product.certs / "cert.pem")


def served_certificate(product: Product, authority: trustme.CA) -> bytes:
    """The certificate that a new TLS client gets, verified."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with (
        socket.create_connection(("127.0.0.1", product.https), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        found = secure.getpeercert(binary_form=True)
    assert found is not None
    return found


def test_https_serves_what_http_serves(fresh: Product) -> None:
    authority = trustme.CA()
    certificate(authority, fresh)
    fresh.start()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    connection = http.client.HTTPSConnection("127.0.0.1", fresh.https, timeout=10, context=context)
    for path, status in (
        ("/exapps/direct/public", 200),
        ("/exapps/direct/user", 403),
        ("/exapps/direct/static/5000000", 200),
    ):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert (path, answer.status) == (path, status)
    connection.close()
    assert fresh.stop() == 0


def test_without_a_certificate_nobody_listens_for_https(fresh: Product) -> None:
    fresh.start()
    assert not listening(fresh.https)
    assert fresh.stop() == 0


def test_hup_takes_over_a_renewed_certificate_and_keeps_connections(fresh: Product) -> None:
    authority = trustme.CA()
    certificate(authority, fresh)
    fresh.start()
    old = served_certificate(fresh, authority)
    connection = http.client.HTTPConnection("127.0.0.1", fresh.http, timeout=10)
    connection.request("GET", "/exapps/direct/public")
    assert connection.getresponse().read()
    certificate(authority, fresh)
    fresh.process.signal(signal.SIGHUP)
    fresh.process.until(lambda: served_certificate(fresh, authority) != old, "renewed certificate")
    connection.request("GET", "/exapps/direct/public")
    assert connection.getresponse().read()
    connection.close()
    assert fresh.stop() == 0


def test_hup_with_a_broken_certificate_keeps_the_old_one(fresh: Product) -> None:
    authority = trustme.CA()
    certificate(authority, fresh)
    fresh.start()
    old = served_certificate(fresh, authority)
    (fresh.certs / "cert.pem").write_text("no certificate")
    fresh.process.signal(signal.SIGHUP)
    fresh.process.until(lambda: "reload failed" in fresh.process.text(), "complaint")
    assert served_certificate(fresh, authority) == old
    assert fresh.stop() == 0


def test_few_file_descriptors_are_told_and_lived_with(fresh: Product) -> None:
    fresh.start(["sh", "-c", 'ulimit -n 64; exec "$0" "$@"', *HARP])
    assert "file descriptors" in fresh.process.text()
    crowd = [socket.create_connection(("127.0.0.1", fresh.http)) for _ in range(200)]
    assert fresh.process.running
    for one in crowd:
        one.close()
    fresh.process.until(lambda: fresh.status("/exapps/direct/public") == 200, "answer after the crowd")
    used = fresh.process.cpu()
    time.sleep(1)
    assert fresh.process.cpu() - used < 0.5  # no busy loop of failing accepts
    assert fresh.stop() == 0


def test_a_read_only_file_system_is_enough(fresh: Product) -> None:
    """Nothing is written but the certificates."""
    script = f"""
        mount --make-rprivate / && mount --bind {fresh.certs} {fresh.certs} && mount -o remount,ro,bind / || exit 77
        if touch {fresh.directory}/probe 2>/dev/null; then exit 78; fi
        exec "$0" "$@" """
    namespace = ["unshare", "--mount", "sh", "-c", script]
    tried = subprocess.run([*namespace, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        do_without(f"needs root and mount namespaces: {tried.stderr.strip() or tried.returncode}")
    fresh.start([*namespace, *HARP])
    assert (fresh.certs / "frp" / "ca.crt").exists()
    assert fresh.status("/exapps/direct/public") == 200
    assert fresh.stop() == 0


def test_a_port_that_is_taken_ends_the_start_with_a_reason(fresh: Product) -> None:
    with socket.create_server(("127.0.0.1", fresh.http)):
        process = Process([*HARP, "run"], fresh.directory / "harp.log", env=fresh.environment)
        assert process.wait() == 1
    assert str(fresh.http) in process.text()
    assert "Traceback" not in process.text()


def test_check_names_every_problem_at_once(tmp_path: Path) -> None:
    environment = bare(HP_EXAPPS_ADDRESS="nonsense", HP_BLACKLIST_COUNT="many")
    process = Process([*HARP, "check"], tmp_path / "log", env=environment)
    assert process.wait() == 1
    for name in ("HP_SHARED_KEY", "NC_INSTANCE_URL", "HP_EXAPPS_ADDRESS", "HP_BLACKLIST_COUNT"):
        assert name in process.text()


def test_no_secret_reaches_the_log(world: World, tmp_path: Path) -> None:
    with running(tmp_path, world.nextcloud, HP_LOG_LEVEL="debug") as product:
        product.register("logged", "127.0.0.1", free_port())
        headers = {"authorization": "Basic c2VjcmV0OnNlY3JldA==", "cookie": "oc_sessionPassphrase=passphrase-secret"}
        assert product.status("/exapps/direct/user", **headers) in {401, 403}
        assert product.status("/exapps/app_api/heartbeat", harp_shared_key="wrong-secret") == 401
        assert product.status("/exapps/direct/public?token=query-secret", **CONTROL) == 200
    for secret in (KEY, "c2VjcmV0OnNlY3JldA", "passphrase-secret", "wrong-secret", "query-secret", "token of logged"):
        assert secret not in product.process.text()
