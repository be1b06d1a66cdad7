"""Links between replicas, without a store: what passes them, who gets none, and what becomes of one that is away."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import aiohttp
import pytest

from harp.net.member_tls import member_tls
from harp.testing.hello import static_content
from harp.wire.frp_login import LINK_BYTE
from harp.wire.member import Greeting, packed
from tests.live.linked import LinkedReplicas, linked_replicas
from tests.live.tunnels import OWN, SHIPPED, start_tunnel
from tests.live.workers import ask
from tests.live.world import TUNNEL_PORT, World

MIB = 1 << 20
LARGE = 128 * MIB


@pytest.fixture(scope="module")
def replicas(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LinkedReplicas]:
    """Three; "hello" is behind a stock frpc that has dialled the last."""
    with (
        linked_replicas(tmp_path_factory.mktemp("links"), world.nextcloud) as replicas,
        start_tunnel(replicas["c"], SHIPPED, "hello", TUNNEL_PORT, world.socket),
    ):
        replicas.until_served("hello", "abc")
        yield replicas


@pytest.fixture
def fresh(world: World, tmp_path: Path) -> Iterator[LinkedReplicas]:
    """Three of the test's own: whatever happens to them."""
    with linked_replicas(tmp_path, world.nextcloud, HP_TUNNEL_HOLD="10s") as replicas:
        yield replicas


def peaks(replicas: LinkedReplicas) -> int:
    """The most memory that all of them have ever had."""
    return sum(product.process.peak_rss() for product in replicas.all.values())


# What passes a link


def test_every_exapp_answers_through_each_replica(replicas: LinkedReplicas) -> None:
    for name in "abc":
        client = replicas.client(name)
        assert [ask(client, f"/exapps/{app}/public") for app in ("direct", "hello") * 50] == [200] * 100
        client.close()


@pytest.mark.timeout(300)
def test_large_bodies_pass_intact_at_constant_memory(replicas: LinkedReplicas) -> None:
    before, expected, digest = peaks(replicas), sha256(), sha256()
    client = replicas.client("a")
    client.request("GET", f"/exapps/hello/static/{LARGE}")
    answer = client.getresponse()
    for piece in static_content(LARGE):
        digest.update(answer.read(len(piece)))
        expected.update(piece)
    assert digest.digest() == expected.digest()
    answer.read()
    client.request("POST", "/exapps/hello/upload", static_content(LARGE), {"Content-Length": str(LARGE)})
    assert json.loads(client.getresponse().read()) == {"bytes": LARGE, "sha256": expected.hexdigest()}
    client.close()
    assert peaks(replicas) - before < 64 * MIB


def test_readers_that_do_not_read_cost_no_memory_and_hold_nobody_up(replicas: LinkedReplicas) -> None:
    before = peaks(replicas)
    idle = [replicas.client("b") for _ in range(4)]
    for client in idle:
        client.request("GET", f"/exapps/hello/static/{1024 * MIB}")
    other = replicas.client("b")
    assert [ask(other, "/exapps/hello/public") for _ in range(20)] == [200] * 20
    for client in (*idle, other):
        client.close()
    assert peaks(replicas) - before < 64 * MIB


async def test_websockets_and_streams_pass(replicas: LinkedReplicas) -> None:
    async with aiohttp.ClientSession() as session:
        for name in "ab":
            base = f"{replicas[name].url}/exapps/hello"
            async with session.ws_connect(f"{base}/ws") as websocket:
                await websocket.send_str("a message")
                assert (await websocket.receive_str(timeout=20)).endswith("a message")
                await websocket.send_bytes(bytes(300_000))
                assert len(await websocket.receive_bytes(timeout=20)) == 300_000
            async with session.get(f"{base}/sse") as answer:
                async for line in answer.content:
                    if line.startswith(b"data:"):
                        break
                assert answer.status == 200


def test_what_all_have_is_listed_by_each_and_counted_by_its_own(replicas: LinkedReplicas) -> None:
    for name in "abc":
        assert [line["port"] for line in replicas[name].told("apps")["apps"] if line["app"] == "hello"] == [TUNNEL_PORT]
        assert len(replicas[name].told("tunnels")["tunnels"]) == 1
        metrics = replicas[name].admin_page("/metrics")
        assert metrics.count("harp_member_linked{member=") == 3
        (tunnels,) = [line.split()[1] for line in metrics.splitlines() if line.startswith("harp_tunnels ")]
        assert float(tunnels) == (1.0 if name == "c" else 0.0)
        assert "harp_worker_linked" not in metrics


def test_links_are_encrypted_where_tunnels_need_not_be(world: World, tmp_path: Path) -> None:
    with linked_replicas(tmp_path, world.nextcloud, "ab", HP_FRP_DISABLE_TLS="true") as replicas:
        assert replicas.linked("b") == ["a", "b"]


# Who gets none


@pytest.mark.parametrize("stem", ["client", "member"])
def test_the_certificate_of_an_exapp_makes_no_replica(replicas: LinkedReplicas, stem: str) -> None:
    """With that of replicas the same connection is answered, so it is the certificate that decides."""
    directory = replicas.certs / "frp"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(directory / "ca.crt")
    context.load_cert_chain(directory / f"{stem}.crt", directory / f"{stem}.key")
    context.set_alpn_protocols(["harp-member"])
    with socket.create_connection(("127.0.0.1", replicas["b"].frp), 10) as bare:
        bare.sendall(LINK_BYTE + member_tls(directory).authority)
        answer = b""
        with context.wrap_socket(bare) as secure, suppress(ssl.SSLError, ConnectionError):
            secure.sendall(packed(Greeting("a", "a boot", "elsewhere")))
            while piece := secure.recv(4096):
                answer += piece
    log = replicas["b"].process
    if stem == "client":
        assert answer == b""
        log.until(lambda: "but not a replica's" in log.text(), "refusal")
    else:
        assert b"a looks for elsewhere, and this is b" in answer
    assert replicas.linked("b") == ["a", "b", "c"]


# One that is away


def test_a_killed_replica_costs_its_own_connections_only(fresh: LinkedReplicas, world: World) -> None:
    """Requests to its tunnel's ExApp wait until the client has dialled another one."""
    stop, statuses = threading.Event(), []

    def load() -> None:
        client = fresh.client("a")
        while not stop.is_set():
            statuses.append(ask(client, "/exapps/direct/public"))
        client.close()

    with start_tunnel(fresh["c"], OWN, "hello", TUNNEL_PORT, world.socket):
        fresh.until_served("hello", "abc")
        loading = threading.Thread(target=load)
        loading.start()
        try:
            fresh["a"].process.until(lambda: len(statuses) > 20, "load")
            fresh["c"].process.kill()
            fresh.until_linked("ab")
            held: list[int] = []
            waiting = threading.Thread(target=lambda: held.append(fresh["a"].status("/exapps/hello/public")))
            waiting.start()
            with start_tunnel(fresh["b"], OWN, "hello", TUNNEL_PORT, world.socket):
                waiting.join()
                assert held == [200]
                fresh.until_served("hello", "ab")
                fresh.start("c")
                fresh.until_linked()
                fresh.until_served("hello", "abc")
        finally:
            stop.set()
            loading.join()
    assert set(statuses) == {200}


def test_one_that_hangs_is_named_soon_given_up_and_linked_again_when_it_answers(
    fresh: LinkedReplicas, world: World
) -> None:
    with start_tunnel(fresh["c"], SHIPPED, "hello", TUNNEL_PORT, world.socket):
        fresh.until_served("hello", "abc")
        hung = fresh["c"].process
        hung.signal(signal.SIGSTOP)
        waiting = fresh["a"].process
        waiting.until(lambda: "member busy" in waiting.text(), "notice")
        assert fresh["a"].status("/exapps/hello/sse") == 503
        (told,) = fresh["a"].served("/exapps/hello/sse")
        assert told["reason"] == "ExApp hello cannot be reached: member c has not answered for 3 s"
        for name in "ab":
            process = fresh[name].process
            process.until(lambda process=process: "no answer for 6 s" in process.text(), "loss", 40)  # type: ignore[misc]
            assert fresh[name].status("/exapps/direct/public") == 200
        hung.signal(signal.SIGCONT)
        fresh.until_linked()
        fresh.until_served("hello", "abc")


def test_one_that_is_told_to_stop_leaves_without_alarm(fresh: LinkedReplicas) -> None:
    assert fresh["b"].stop() == 0
    for name in "ac":
        process = fresh[name].process
        process.until(lambda process=process: "member left" in process.text(), "farewell")  # type: ignore[misc]
        assert "member lost" not in process.text()


async def test_a_replica_does_not_wait_for_the_others_to_drain(fresh: LinkedReplicas) -> None:
    async with aiohttp.ClientSession() as session:
        websocket = await session.ws_connect(f"{fresh['a'].url}/exapps/direct/ws")
        began = time.monotonic()
        assert await asyncio.to_thread(fresh["b"].stop) == 0
        assert time.monotonic() - began < 6  # its drain would be 8 s
        await websocket.close()
