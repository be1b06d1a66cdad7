"""Three replicas, a real Redis and HAProxy: every app through each of them, whatever happens to one or to the store."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import pytest

from tests.cluster.redis_server import RedisServer
from tests.live.engine import Engine
from tests.live.many_apps import ManyApps, app
from tests.live.networks import cut, own_network
from tests.live.product import HARP, KEY, Product
from tests.live.replicas import NAMES, Load, Replicas, world_of_replicas
from tests.live.tunnels import OWN, SHIPPED, start_tunnel
from tests.live.world import TUNNEL_PORT, World

FRPC, OURS = 30, 10
APPS = [app(number) for number in range(FRPC + OURS)]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Replicas, ManyApps]]:
    """Three replicas with 30 frpc and 10 of our own clients, each with an app of its own, all through HAProxy."""
    folder = tmp_path_factory.mktemp("replicas")
    with world_of_replicas(folder, FRPC + OURS, OURS, HP_TUNNEL_HOLD="20s") as made:
        yield made


@pytest.fixture
def replicas(crowd: tuple[Replicas, ManyApps]) -> Iterator[Replicas]:
    """Them, and at the end of each test all are there again."""
    replicas, _ = crowd
    yield replicas
    replicas.until_whole()
    replicas.until_served(APPS)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with TemporaryDirectory(prefix="harp-rep-") as directory:
        server = RedisServer(Path(directory))
        yield server
        server.end()


@pytest.fixture
def fresh(redis: RedisServer, world: World, tmp_path: Path) -> Iterator[Replicas]:
    """Three without HAProxy and without tunnels; whatever happens to them."""
    more = {"HP_BLACKLIST_COUNT": "10", "HP_TRUSTED_PROXY_IPS": "127.0.0.1"}
    replicas = Replicas(tmp_path, redis, world.nextcloud, **more)
    try:
        replicas.start()
        yield replicas
    finally:
        replicas.stop()


def harp(product: Product, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HARP, *arguments], env=product.environment, capture_output=True, text=True, timeout=60, check=False
    )


def holders(replicas: Replicas) -> dict[str, str]:
    """Which replica holds the tunnel of each app."""
    found: dict[str, str] = {}
    for name, product in replicas.all.items():
        connection = http.client.HTTPConnection("127.0.0.1", product.admin, timeout=10)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        found.update({one: name for one in APPS if f'name="{one}"' in text})
    return found


# All that is served


def test_every_app_answers_through_every_replica_and_the_load_balancer(replicas: Replicas) -> None:
    counts = {line["name"]: line["tunnels"] for line in replicas.members("a")}
    assert sum(counts.values()) == len(APPS)
    assert all(counts.values()), counts  # HAProxy has spread them
    ports = [product.http for product in replicas.all.values()]
    for port in (*ports, replicas.http):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for one in APPS:
            client.request("GET", f"/exapps/{one}/public")
            answer = client.getresponse()
            assert (answer.status, b"Hello" in answer.read()) == (200, True)
        client.close()


def test_members_are_listed_by_each(replicas: Replicas) -> None:
    for product in replicas.all.values():
        listed = harp(product, "members")
        assert listed.returncode == 0
        assert [line.split()[0] for line in listed.stdout.splitlines()[1:4]] == list(NAMES)


def test_an_engine_behind_any_replica_is_reached_through_each(fresh: Replicas, engine: Engine) -> None:
    asked = {"harp-shared-key": KEY, "docker-engine-port": "24001"}
    with start_tunnel(fresh["b"], SHIPPED, "gpu-box", 24001, engine.socket):
        for name, product in fresh.all.items():

            def answer(product: Product = product) -> bytes:
                connection = http.client.HTTPConnection("127.0.0.1", product.http, timeout=20)
                connection.request("GET", "/exapps/app_api/v1.41/_ping", headers=asked)
                body = connection.getresponse().read()
                connection.close()
                return body

            product.process.until(lambda answer=answer: answer() == b"OK", f"engine at {name}")  # type: ignore[misc]


def test_ten_strikes_over_all_ban_everywhere_until_they_are_lifted(fresh: Replicas) -> None:
    def status(product: Product, key: str = "") -> int:
        more = {"harp_shared_key": key} if key else {}
        return product.status("/exapps/app_api/info", X_Forwarded_For="198.51.100.7", **more)

    products = list(fresh.all.values())
    for number in range(10):
        assert status(products[number % 3], "a wrong key") == 401
    began = time.monotonic()
    for product in products:
        product.process.until(lambda product=product: status(product) == 429, "ban", timeout=5)  # type: ignore[misc]
    print(f"banned everywhere after {time.monotonic() - began:.3f} s")
    assert harp(products[1], "bans", "lift", "198.51.100.7").returncode == 0
    for product in products:
        product.process.until(lambda product=product: status(product) != 429, "end", timeout=5)  # type: ignore[misc]


# What happens to the store


def restart(redis: RedisServer) -> None:
    redis.kill()
    redis.start()


OUTAGES: dict[str, tuple[Callable[[RedisServer], object], Callable[[RedisServer], object]]] = {
    "hangs": (RedisServer.stop, RedisServer.go_on),
    "is killed": (RedisServer.kill, RedisServer.start),
    "is emptied": (lambda redis: redis.tell("FLUSHALL"), lambda redis: None),
    "is restarted": (restart, lambda redis: None),
}


@pytest.mark.parametrize("what", OUTAGES)
def test_no_request_fails_or_waits_when_the_store(replicas: Replicas, what: str) -> None:
    """The times of all requests, 99 of 100, are compared with those just before."""
    begin, end = OUTAGES[what]
    with Load([(name, replicas[name].http) for name in NAMES], APPS, pause=0.01) as load:
        start = time.monotonic()
        while len(load.asked) < 600:
            time.sleep(0.05)
        middle, count = time.monotonic(), len(load.asked)
        begin(replicas.redis)
        seen = time.monotonic() + 4  # longer than it takes until that is noticed
        while len(load.asked) < count + 600 or time.monotonic() < seen:
            time.sleep(0.05)
        end(replicas.redis)
    assert set(load.statuses()) == {200}
    before, during = load.p99(start, middle), load.p99(middle)
    print(f"{what}: p99 {before * 1000:.1f} ms before, {during * 1000:.1f} ms during, {len(load.asked)} requests")
    assert during < max(4 * before, 0.25)


def test_a_replica_that_starts_while_the_store_is_away_serves_and_is_found_later(replicas: Replicas) -> None:
    replicas.redis.kill()
    replicas["c"].process.kill()
    replicas["c"].start()
    replicas["c"].process.until(lambda: replicas["c"].admin_status("/readyz") == 200, "readiness")
    listed = harp(replicas["c"], "members")
    assert (listed.returncode, "cannot be used: Connection refused" in listed.stdout) == (1, True)
    assert any(
        "Replicas that start are not found" in line["what"] for line in replicas.all["c"].told("problems")["problems"]
    )
    doctor = json.loads(harp(replicas["c"], "doctor", "--json").stdout)
    (found,) = (one for one in doctor["findings"] if one["check"] == "members")
    assert (found["state"], "Connection refused" in found["cause"]) == ("warning", True)
    replicas.redis.start()


# What happens to a replica


def test_a_killed_replica_costs_its_own_connections_only(replicas: Replicas) -> None:
    held = {line["name"]: line["tunnels"] for line in replicas.members("a")}
    victim = max(("b", "c"), key=lambda name: held[name])
    (other,) = {"b", "c"} - {victim}
    names = ("a", other)
    theirs = holders(replicas)
    safe = [one for one in APPS if theirs[one] != victim]
    lost = [one for one in APPS if theirs[one] == victim]
    with (
        Load([(name, replicas[name].http) for name in names] * 2, safe) as load,
        Load([(name, replicas[name].http) for name in names], lost) as waiting,
    ):
        while len(load.asked) < 200 or len(waiting.asked) < 20:
            time.sleep(0.05)
        killed = time.monotonic()
        replicas[victim].process.kill()
        seconds = replicas.until_served(lost, names, 30)
        replicas[victim].start()
        replicas.until_whole()
    slowest = max(asked.seconds for asked in waiting.asked if asked.began + asked.seconds > killed)
    print(f"{len(lost)} tunnels serve again after {seconds:.2f} s; the longest request took {slowest:.2f} s")
    print(f"requests to others' apps: {dict(load.statuses())}, to theirs: {dict(waiting.statuses())}")
    assert set(load.statuses()) == {200}
    assert seconds < 10  # 3 on a machine that is not busy


async def test_a_rolling_update_of_all_costs_no_request(replicas: Replicas) -> None:
    """For clients that ask again when a kept connection is closed, as they have to."""
    load = Load([("haproxy", replicas.http)] * 4, APPS)
    async with aiohttp.ClientSession() as session:
        await asyncio.to_thread(load.__enter__)
        try:
            for name in NAMES:
                product = replicas[name]
                socket = await session.ws_connect(f"http://127.0.0.1:{product.http}/exapps/{APPS[0]}/ws")
                product.process.signal(signal.SIGTERM)
                message = await socket.receive(timeout=20)
                assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)
                await socket.close()
                assert await asyncio.to_thread(product.process.wait, 30) == 0
                await asyncio.to_thread(product.start)
                await asyncio.to_thread(replicas.until_whole)
                await asyncio.to_thread(replicas.until_served, APPS)
        finally:
            await asyncio.to_thread(load.__exit__)
    counts = load.statuses()
    retried = sum(asked.retried for asked in load.asked)
    slowest = max(asked.seconds for asked in load.asked)
    print(f"{dict(counts)}, {retried} asked again, the longest took {slowest:.2f} s")
    assert [asked for asked in load.asked if asked.status != 200] == []


# A network that is cut


@pytest.fixture
def apart(redis: RedisServer, tmp_path: Path) -> Iterator[tuple[Replicas, World]]:
    """Three in a network of their own, where a dials b at an address that nobody else uses."""
    with own_network():
        world = World(redis.directory)
        replicas = Replicas(tmp_path, redis, world.nextcloud)
        b = replicas["b"]
        b.environment["HP_FRP_ADDRESS"] = f"127.0.0.1:{b.frp},127.0.0.3:{b.frp}"
        b.environment["HP_CLUSTER_ADDRESS"] = "127.0.0.3"
        try:
            replicas.start()
            yield replicas, world
        finally:
            replicas.stop()
            world.process.stop()


def test_a_cut_between_two_replicas_costs_what_they_have_of_each_other(apart: tuple[Replicas, World]) -> None:
    """Both reach the store and the third one, and not each other, until the network is whole again."""
    replicas, world = apart
    a, b, c = replicas.all.values()
    with start_tunnel(b, OWN, "hello", TUNNEL_PORT, world.socket):
        replicas.until_served(["hello", "direct"])
        with Load([("b", b.http), ("c", c.http)], ["hello"]) as load, Load([("a", a.http)], ["direct"]) as direct:
            with cut("127.0.0.3", b.frp):
                a.process.until(lambda: replicas.linked("a") == ["a", "c"], "loss at a", 40, 0.1)
                b.process.until(lambda: replicas.linked("b") == ["b", "c"], "loss at b", 40, 0.1)
                assert replicas.linked("c") == ["a", "b", "c"]
                assert a.status("/exapps/hello/public") == 503
                assert harp(a, "members").returncode == 1
            replicas.until_whole()
            replicas.until_served(["hello"])
    assert set(load.statuses()) == set(direct.statuses()) == {200}
