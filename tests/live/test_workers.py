"""Two workers (HP_WORKERS=2) as one HaRP: every app through either, and what becomes of the rest when one dies."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path

import aiohttp
import pytest

from harp.testing.hello import static_content
from tests.live.engine import Engine
from tests.live.frp import exapp_toml, frpc, tls_of
from tests.live.processes import Process, listening
from tests.live.product import HARP, KEY, Product, running
from tests.live.tunnels import OWN, SHIPPED, start_tunnel
from tests.live.workers import Workers, ask, children, serving
from tests.live.world import TUNNEL_PORT, World

MIB = 1 << 20
LARGE = 128 * MIB
TWO = {"HP_WORKERS": "2", "HP_BLACKLIST_COUNT": "10"}


@pytest.fixture(scope="module")
def workers(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Two, with a stock frpc."""
    with (
        running(tmp_path_factory.mktemp("workers"), world.nextcloud, **TWO) as product,
        serving(product, world, SHIPPED) as workers,
    ):
        yield workers


@pytest.fixture
def fresh(world: World, tmp_path: Path) -> Iterator[Workers]:
    """Two of the test's own, with our own client: whatever happens to them."""
    product = Product(tmp_path / "harp", world.nextcloud, **TWO)
    product.start()
    try:
        with serving(product, world, OWN) as workers:
            yield workers
    finally:
        if product.process.running:
            product.stop()


def harp(product: Product, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HARP, *arguments], env=product.environment, capture_output=True, text=True, timeout=60, check=False
    )


def memory(pids: list[int]) -> int:
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


# Through a link


def test_every_exapp_answers_through_either_worker(workers: Workers) -> None:
    for pid in workers.pids():
        with workers.connection(pid) as client:
            assert [ask(client, f"/exapps/{app}/public") for app in ("direct", "hello") * 50] == [200] * 100


def test_connections_are_spread_over_the_workers(workers: Workers) -> None:
    before = [line.requests for line in workers.members()]
    for _ in range(100):
        assert workers.product.status("/exapps/direct/public") == 200
    grown = [line.requests - old for line, old in zip(workers.members(), before, strict=True)]
    assert sum(grown) >= 100
    assert min(grown) > 15


@pytest.mark.timeout(300)
def test_large_bodies_pass_a_link_intact_at_constant_memory(workers: Workers) -> None:
    before, expected, digest = memory(workers.pids()), sha256(), sha256()
    with workers.connection(workers.other(workers.holder())) as client:
        client.request("GET", f"/exapps/hello/static/{LARGE}")
        answer = client.getresponse()
        for piece in static_content(LARGE):
            digest.update(answer.read(len(piece)))
            expected.update(piece)
        assert digest.digest() == expected.digest()
        answer.read()
        client.request("POST", "/exapps/hello/upload", static_content(LARGE), {"Content-Length": str(LARGE)})
        assert json.loads(client.getresponse().read()) == {"bytes": LARGE, "sha256": expected.hexdigest()}
    assert memory(workers.pids()) - before < 64 * MIB


def test_a_reader_that_does_not_read_costs_no_memory_and_holds_nobody_up(workers: Workers) -> None:
    there = workers.other(workers.holder())
    before = memory(workers.pids())
    idle = [workers.connect(there) for _ in range(4)]
    for client in idle:
        client.request("GET", f"/exapps/hello/static/{1024 * MIB}")
    with workers.connection(there) as client:
        for _ in range(20):
            assert ask(client, "/exapps/hello/public") == 200
    for client in idle:
        client.close()
    assert memory(workers.pids()) - before < 64 * MIB


async def test_websockets_and_streams_pass_a_link(workers: Workers) -> None:
    there = await asyncio.to_thread(lambda: workers.other(workers.holder()))
    base = f"http://127.0.0.1:{workers.product.http}/exapps/hello"
    seen = set()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        for number in range(16):  # one of them, almost surely, at the worker without the tunnel
            async with session.ws_connect(f"{base}/ws") as socket:
                await socket.send_str(f"message {number}")
                assert (await socket.receive_str(timeout=20)).endswith(f"message {number}")
                await socket.send_bytes(bytes(300_000))
                assert len(await socket.receive_bytes(timeout=20)) == 300_000
            async with session.get(f"{base}/sse") as answer:
                async for line in answer.content:
                    if line.startswith(b"data:"):
                        break
                seen.add(answer.status)
    assert seen == {200}
    assert there in workers.pids()


def test_work_connections_without_yamux_are_handed_over(world: World, tmp_path: Path) -> None:
    with running(tmp_path, world.nextcloud, **TWO) as product:
        workers = Workers(product)
        workers.until_whole()
        more = {key.replace(".", "__"): value for key, value in tls_of(product.certs / "frp").items()}
        text = exapp_toml(product.frp, "hello", TUNNEL_PORT, world.socket, KEY, transport__tcpMux=False, **more)
        (tmp_path / "frpc.toml").write_text(text)
        with Process([frpc(SHIPPED), "-c", str(tmp_path / "frpc.toml")], tmp_path / "frpc.log"):
            workers.until_offered()
            for pid in workers.pids():
                with workers.connection(pid) as client:
                    assert [ask(client, "/exapps/hello/public") for _ in range(50)] == [200] * 50
                    client.request("GET", f"/exapps/hello/static/{MIB}")
                    assert client.getresponse().read() == b"".join(static_content(MIB))


def test_an_engine_behind_a_tunnel_is_reached_through_either_worker(workers: Workers, engine: Engine) -> None:
    product = workers.product
    asked = {"harp-shared-key": KEY, "docker-engine-port": "24001"}
    with start_tunnel(product, SHIPPED, "gpu-box", 24001, engine.socket):
        for pid in workers.pids():
            with workers.connection(pid) as client:

                def answer(client: http.client.HTTPConnection = client) -> bytes:
                    client.request("GET", "/exapps/app_api/v1.41/_ping", headers=asked)
                    return client.getresponse().read()

                product.process.until(lambda: answer() == b"OK", f"engine at {pid}")


# What all share


def test_ten_strikes_over_both_ban_everywhere_until_they_are_lifted(world: World, tmp_path: Path) -> None:
    with running(tmp_path, world.nextcloud, HP_TRUSTED_PROXY_IPS="127.0.0.1", **TWO) as product:
        workers = Workers(product)
        workers.until_whole()
        clients = [workers.connect(pid) for pid in workers.pids()]

        def status(client: http.client.HTTPConnection, key: str = "") -> int:
            more = {"harp-shared-key": key} if key else {}
            client.request("GET", "/exapps/app_api/info", headers={"X-Forwarded-For": "198.51.100.7", **more})
            answer = client.getresponse()
            answer.read()
            return answer.status

        for number in range(10):
            assert status(clients[number % 2], "a wrong key") == 401
        for client in clients:
            product.process.until(lambda client=client: status(client) == 429, "ban", timeout=5)  # type: ignore[misc]
        assert [ban["address"] for ban in workers.product.told("bans")["bans"]] == ["198.51.100.7"]
        assert harp(product, "bans", "lift", "198.51.100.7").returncode == 0
        for client in clients:
            product.process.until(lambda client=client: status(client) != 429, "end", timeout=5)  # type: ignore[misc]
            client.close()


def test_a_record_that_one_is_brought_is_served_by_the_other(workers: Workers, world: World) -> None:
    """This Nextcloud knows nothing of it, so it can only come from the one that was told."""
    workers.product.register("pushed", "127.0.0.1", world.direct_port, public=0)
    for pid in workers.pids():
        with workers.connection(pid) as client:
            status = partial(ask, client, "/exapps/pushed/public")
            workers.product.process.until(lambda status=status: status() not in (0, 404), f"record at {pid}")  # type: ignore[misc]
    workers.product.forget("pushed")


def test_members_are_listed_and_what_they_have_done_is_added_up(workers: Workers) -> None:
    listed = harp(workers.product, "members")
    assert listed.returncode == 0
    assert [line.split()[1] for line in listed.stdout.splitlines()[1:]] == ["leads", "linked"]
    members = workers.members()
    assert sorted(one.process for one in members) == sorted(workers.pids())
    snapshot = workers.product.told("snapshot")
    assert snapshot["process"]["requests"] >= sum(one.requests for one in members)
    assert {("direct", ""), ("hello", "connected")} <= {(line["app"], line["tunnel"]) for line in snapshot["apps"]}
    assert len(snapshot["tunnels"]) == 1
    assert 'harp_worker_linked{worker="1"} 1.0' in workers.product.admin_page("/metrics")
    assert harp(workers.product, "health").returncode == 0


def test_the_doctor_finds_everything_in_order_wherever_its_steps_arrive(world: World, tmp_path: Path) -> None:
    product = Product(tmp_path / "harp", world.nextcloud, HP_GATEWAY_URL=world.nextcloud, **TWO)
    product.environment["HP_PUBLIC_URL"] = product.url
    product.start()
    try:
        with serving(product, world, OWN):
            for _ in range(2):  # its steps are spread anew each time
                report = json.loads(harp(product, "doctor", "--json").stdout)
                assert [finding for finding in report["findings"] if finding["state"] == "failed"] == []
    finally:
        product.stop()


def test_requests_of_both_are_shown_to_whoever_looks(workers: Workers) -> None:
    clients = [workers.connect(pid) for pid in workers.pids()]
    wanted = {f"/exapps/direct/number/{number}" for number in range(2)}

    def shown() -> bool:
        seen = {line["path"] for line in workers.product.told("requests")["recent"]}
        for number, client in enumerate(clients):
            ask(client, f"/exapps/direct/number/{number}")
        return wanted <= seen

    workers.product.process.until(shown, "requests of both", pause=0.1)
    for client in clients:
        client.close()


# When one is away


def test_a_worker_that_is_stopped_holds_up_nobody_at_the_other(fresh: Workers) -> None:
    stopped = fresh.other(fresh.holder())
    with fresh.connection(fresh.other(stopped)) as client:
        with suppress(ProcessLookupError):
            signal_to(stopped, signal.SIGSTOP)
        try:
            times = []
            for _ in range(200):
                began = time.monotonic()
                assert ask(client, "/exapps/hello/public") == 200
                times.append(time.monotonic() - began)
        finally:
            signal_to(stopped, signal.SIGCONT)
    assert sorted(times)[197] < 2  # whoever had to wait for it would wait for seconds


@pytest.mark.parametrize("which", ["that leads", "other"])
def test_a_worker_that_hangs_is_stood_in_for_until_it_answers(fresh: Workers, which: str) -> None:
    lines = {line.leads: line.process for line in fresh.members()}
    stopped = lines[which == "that leads"]
    product = fresh.product
    signal_to(stopped, signal.SIGSTOP)
    try:
        product.process.until(
            lambda: all(product.status("/exapps/direct/public") == 200 for _ in range(20)), "service", 60
        )
        product.process.until(lambda: product.admin_status("/heartbeat") == 200, "admin listener")
    finally:
        signal_to(stopped, signal.SIGCONT)
    fresh.until_whole()
    fresh.connect(stopped).close()
    assert stopped in fresh.pids()


@pytest.mark.parametrize("which", ["with the tunnel", "without"])
def test_a_killed_worker_costs_its_own_connections_only_and_is_back(fresh: Workers, which: str) -> None:
    holder = fresh.holder()
    victim = holder if which == "with the tunnel" else fresh.other(holder)
    survivor = fresh.other(victim)
    stop, statuses = threading.Event(), []

    def load() -> None:
        client = fresh.connect(survivor)
        while not stop.is_set():
            statuses.append(ask(client, "/exapps/direct/public"))
        client.close()

    loading = threading.Thread(target=load)
    loading.start()
    try:
        fresh.product.process.until(lambda: len(statuses) > 20, "load")
        signal_to(victim, signal.SIGKILL)
        product = fresh.product
        until = time.monotonic() + 1
        while time.monotonic() < until:  # new connections wait for nobody: the survivor stands in
            assert product.status("/exapps/direct/public") in (200, 0)
        product.process.until(fresh.whole, "the new worker", timeout=30, pause=0.1)
        assert victim not in fresh.pids()
        fresh.until_offered()
    finally:
        stop.set()
        loading.join()
    assert set(statuses) == {200}


def test_a_killed_forker_costs_nothing_and_another_one_forks(fresh: Workers) -> None:
    (forker,) = children(fresh.product.process.pid)
    before = fresh.pids()
    signal_to(forker, signal.SIGKILL)
    fresh.product.process.until(lambda: "forks workers has ended" in fresh.product.process.text(), "line in the log")
    for pid in before:
        with fresh.connection(pid) as client:
            assert ask(client, "/exapps/direct/public") == 200
    assert sorted(one.process for one in fresh.members()) == sorted(before)
    signal_to(before[0], signal.SIGKILL)
    fresh.product.process.until(
        lambda: (now := processes(fresh)) != [] and before[0] not in now, "another one", timeout=60, pause=0.1
    )


def test_all_workers_may_die_again_and_again(fresh: Workers) -> None:
    for _ in range(2):
        for pid in fresh.pids():
            signal_to(pid, signal.SIGKILL)
        fresh.product.process.until(fresh.whole, "both workers", timeout=60, pause=0.1)
    fresh.until_offered()


# Limits


def test_connections_are_limited_for_both_together(world: World, tmp_path: Path) -> None:
    with running(tmp_path, world.nextcloud, HP_MAX_CONNECTIONS="64", **TWO) as product:
        Workers(product).until_whole()
        clients = [http.client.HTTPConnection("127.0.0.1", product.http, timeout=20) for _ in range(120)]
        statuses = [ask(client, "/exapps/direct/public") for client in clients]
        assert 32 < statuses.count(200) <= 64
        assert set(statuses) <= {200, 503, 0}
        for client in clients:
            client.close()


# Signals


async def test_term_drains_all_workers(fresh: Workers) -> None:
    product = fresh.product
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        url = f"http://127.0.0.1:{product.http}/exapps/hello/ws"
        sockets = [await session.ws_connect(url) for _ in range(8)]
        product.process.signal(signal.SIGTERM)
        for socket in sockets:
            message = await socket.receive(timeout=20)
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)
            await socket.close()
    assert await asyncio.to_thread(product.process.wait, 30) == 0
    assert not listening(product.http)


def test_workers_end_when_their_parent_is_killed(fresh: Workers) -> None:
    pids = fresh.pids()
    fresh.product.process.kill()
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() and not is_zombie(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_hup_reaches_all(fresh: Workers) -> None:
    process = fresh.product.process
    process.signal(signal.SIGHUP)
    process.until(lambda: process.text().count("reloaded certificates and trusted proxies") == 2, "two reloads")


def test_a_start_that_cannot_succeed_ends_with_its_reason(world: World, tmp_path: Path) -> None:
    with running(tmp_path / "first", world.nextcloud) as product:
        second = Product(tmp_path / "second", world.nextcloud, **TWO)
        second.environment["HP_EXAPPS_ADDRESS"] = product.environment["HP_EXAPPS_ADDRESS"]
        run = subprocess.run([*HARP, "run"], env=second.environment, capture_output=True, timeout=60, check=False)
        assert run.returncode == 1
        assert b"cannot listen on" in run.stderr


def signal_to(pid: int, number: signal.Signals) -> None:
    os.kill(pid, number)


def processes(workers: Workers) -> list[int]:
    """As the members say; two that answer, or none."""
    return [one.process for one in workers.members()] if workers.whole() else []


def is_zombie(pid: int) -> bool:
    try:
        return ") Z" in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
