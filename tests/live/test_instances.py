"""Two Nextclouds behind one real HaRP, with real tunnels: the same app ids, ports, tunnel names and users.

Whatever comes in whatever order, on connections that change between them: nothing of one reaches the other.
"""

from __future__ import annotations

import asyncio
import signal
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from statistics import median
from typing import NamedTuple

import pytest

from harp.testing.nextcloud import NextcloudStandIn
from tests.live.frp import EXAPP_VERSION, exapp_toml, start_frpc, tls_of
from tests.live.processes import PATIENCE, Process
from tests.live.product import Product
from tests.live.world import TUNNEL_PORT, raise_descriptor_limit
from tests.tenants_world import HOSTS, KEYS, NAMES, NamedApp

RED, BLUE = NAMES
REQUESTS = 10_000
CONNECTIONS = 16
AHEAD = 8  # requests that are sent before their answers
FLOOD = 3.0  # seconds
KB = 1000


class Clouds:
    """Both Nextclouds, their ExApps, and the HaRP in front."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.directory = directory
        self.apps = {name: NamedApp(name, socket=directory / f"{name}.sock") for name in NAMES}
        self.clouds = {name: NextcloudStandIn(KEYS[name]) for name in NAMES}
        self.file = directory / "instances.toml"
        environment |= {"HP_INSTANCES_FILE": str(self.file), "HP_BLACKLIST_COUNT": "10"}
        self.product = Product(directory / "harp", "", **environment)
        self.product.environment = {
            name: value
            for name, value in self.product.environment.items()
            if name not in ("HP_SHARED_KEY", "NC_INSTANCE_URL")
        }
        self.product.secrets = set(KEYS.values())

    def write(self, *names: str) -> None:
        self.file.write_text("".join(map(self._entry, names)))

    def _entry(self, name: str) -> str:
        key = self.directory / f"{name}.key"
        key.write_text(KEYS[name])
        entry = f'name = "{name}"\nurl = "{self.clouds[name].url}"\nkey_file = "{key}"\nhosts = ["{HOSTS[name]}"]\n'
        return f"[[instance]]\n{entry}"

    def start_tunnel(self, name: str) -> Process:
        """The stock frpc of an ExApp of this Nextcloud."""
        tls = {key.replace(".", "__"): value for key, value in tls_of(self.product.certs / "frp").items()}
        socket = self.directory / f"{name}.sock"
        text = exapp_toml(self.product.frp, "hello", TUNNEL_PORT, socket, KEYS[name], **tls)
        return start_frpc(EXAPP_VERSION, text, self.directory, f"frpc-{name}")

    async def status(self, host: str, path: str = "/exapps/hello/public", **headers: str) -> int:
        return await asyncio.to_thread(self.product.status, path, Host=host, **headers)

    async def until(self, host: str, wanted: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while await self.status(host) != wanted:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def running_clouds(directory: Path, **environment: str) -> AsyncIterator[Clouds]:
    """Both with their tunnels connected."""
    world = Clouds(directory, **environment)
    async with AsyncExitStack() as stack:
        for name in NAMES:
            await stack.enter_async_context(world.clouds[name])
            await stack.enter_async_context(world.apps[name])
            world.clouds[name].register(world.apps[name].record(port=TUNNEL_PORT))
        world.write(*NAMES)
        await asyncio.to_thread(world.product.start)
        with ExitStack() as processes:
            for name in NAMES:
                processes.enter_context(world.start_tunnel(name))
            for name in NAMES:
                await world.until(HOSTS[name], 200)
            yield world
        assert await asyncio.to_thread(world.product.stop) == 0


class InstanceCase(NamedTuple):
    """A request, and what may come back."""

    host: str
    path: str
    lines: str
    status: int
    instance: str = ""  # whose ExApp answers
    user: str = ""


def cases(world: Clouds) -> list[InstanceCase]:
    """Every kind of request, for both."""
    found = []
    cookies = {name: world.clouds[name].log_in("user") for name in NAMES}
    for name, other in ((RED, BLUE), (BLUE, RED)):
        host, key = HOSTS[name], f"harp-shared-key: {KEYS[name]}\r\n"
        authorization = b64encode(f"admin:token of {name}".encode()).decode()
        signed = (
            f"{key}EX-APP-ID: hello\r\nEX-APP-VERSION: 1.0\r\nEX-APP-HOST: 127.0.0.1\r\nEX-APP-PORT: {TUNNEL_PORT}\r\n"
            f"AUTHORIZATION-APP-API: {authorization}\r\n"
        )
        found += [
            InstanceCase(host, "/exapps/hello/public", "", 200, name),
            InstanceCase(host, "/exapps/hello/public", f"Cookie: {cookies[name]}\r\n", 200, name, "user"),
            InstanceCase(host, "/exapps/hello/public", f"Cookie: {cookies[other]}\r\n", 200, name),
            InstanceCase(host, "/exapps/hello/user", f"Cookie: {cookies[name]}\r\n", 200, name, "user"),
            InstanceCase(host, "/exapps/hello/user", f"Cookie: {cookies[other]}\r\n", 403),
            InstanceCase(host, "/exapps/hello/user", "", 403),
            InstanceCase("harp:8780", "/exapps/hello/user", signed, 200, name, "admin"),
            InstanceCase(host, "/exapps/hello/user", signed, 200, name, "admin"),
            InstanceCase(HOSTS[other], "/exapps/hello/user", signed, 421),
            InstanceCase("harp:8780", "/exapps/app_api/heartbeat", key, 200),
            InstanceCase(host, "/exapps/hello/public", f"X-Forwarded-Host: {host}\r\n", 200, name),
            InstanceCase(f"{host.upper()}:443", "/exapps/hello/public", "", 200, name),
        ]
    return [*found, InstanceCase("nobody.example", "/exapps/hello/public", "", 421)]


async def ask(world: Clouds, asked: Sequence[InstanceCase], first: int) -> int:
    """Send all of them over one connection, AHEAD at a time, and compare every answer with its request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.product.http)
    for start in range(0, len(asked), AHEAD):
        part = list(enumerate(asked[start : start + AHEAD], first + start))
        for number, case in part:
            writer.write(f"GET {case.path}?n={number} HTTP/1.1\r\nHost: {case.host}\r\n{case.lines}\r\n".encode())
        for number, case in part:
            async with asyncio.timeout(PATIENCE):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = int(head.partition("content-length:")[2].split("\r\n")[0])
                body = (await reader.readexactly(length)).decode()
            assert int(head.split()[1]) == case.status, (case, head, body)
            if case.instance:
                instance, authorization, target = body.split(" ")
                user, _, token = b64decode(authorization).decode().partition(":")
                assert (instance, token) == (case.instance, f"token of {case.instance}")
                assert (user, target.partition("?")[2]) == (case.user, f"n={number}")
    writer.close()
    return len(asked)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_of_ten_thousand_mixed_requests_none_crosses(tmp_path: Path, workers: str) -> None:
    async with running_clouds(tmp_path, HP_WORKERS=workers) as world:
        kinds, random = cases(world), Random(5)
        mixed = [random.choice(kinds) for _ in range(REQUESTS)]
        share = REQUESTS // CONNECTIONS
        parts = [mixed[at : at + share] for at in range(0, REQUESTS, share)]
        done = await asyncio.gather(*(ask(world, part, at * share) for at, part in enumerate(parts)))
        assert sum(done) == REQUESTS
        for name, cloud in world.clouds.items():  # neither has ever been asked with the other's secrets
            other = BLUE if name == RED else RED
            said = [value for request in cloud.requests for value in request.values("harp-shared-key")]
            assert set(said) == {KEYS[name]}
            assert KEYS[other] not in said


async def test_a_tunnel_belongs_to_its_key_and_a_change_of_the_file_to_the_changed(tmp_path: Path) -> None:
    async with running_clouds(tmp_path) as world:
        process = world.product.process
        world.write(RED)
        process.signal(signal.SIGHUP)
        await world.until(HOSTS[BLUE], 421)
        assert await world.status(HOSTS[RED]) == 200
        world.write(RED, BLUE)
        process.signal(signal.SIGHUP)
        await world.until(HOSTS[BLUE], 200)  # its frpc has logged in again
        assert await world.status(HOSTS[RED]) == 200
        world.file.write_text("[[instance]]\nname = 7\n")
        process.signal(signal.SIGHUP)
        process.until(lambda: "reload failed" in process.text(), "word of the fault")
        for name in NAMES:
            assert await world.status(HOSTS[name]) == 200
        lost = [line for line in process.text().splitlines() if '"tunnel lost"' in line and '"instance":"red"' in line]
        assert lost == []


async def flood(world: Clouds, host: str, seconds: float, taken: list[float]) -> None:
    """Ask for what HaRP answers itself, again and again, and note how long that took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.product.http)
    request = f"GET /exapps/hello/user HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    until = time.monotonic() + seconds
    while (began := time.monotonic()) < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
        taken.append(time.monotonic() - began)
    writer.close()


@pytest.mark.alone
async def test_whoever_floods_one_nextcloud_waits_and_the_other_is_served(tmp_path: Path) -> None:
    raise_descriptor_limit(4000)
    async with running_clouds(tmp_path) as world:
        noisy: list[float] = []
        quiet: list[float] = []
        crowd = [flood(world, HOSTS[RED], FLOOD, noisy) for _ in range(400)]
        await asyncio.gather(*crowd, flood(world, HOSTS[BLUE], FLOOD, quiet))
        assert len(noisy) > 1000
        assert median(quiet) < median(noisy) / 3


def size_of(directory: Path, count: int) -> int:
    """Of a HaRP that has been asked for something of each of so many Nextclouds."""
    product = Product(directory, "")
    for name in ("HP_SHARED_KEY", "NC_INSTANCE_URL"):
        del product.environment[name]
    file = directory / "instances.toml"
    with file.open("w") as text:
        for number in range(count):
            key = directory / f"key{number}"
            key.write_text(f"key of number {number}, long enough")
            text.write(f'[[instance]]\nname = "n{number}"\nurl = "http://127.0.0.1:9/{number}"\n')
            text.write(f'key_file = "{key}"\nhosts = ["n{number}.example"]\n')
    # Without certificates to make: what makes them is large, and so are the clients that take them to engines.
    product.environment |= {"HP_INSTANCES_FILE": str(file), "HP_LOG_LEVEL": "error", "HP_FRP_DISABLE_TLS": "true"}
    product.start()
    try:
        for number in range(count):
            assert product.status("/exapps/hello/public", Host=f"n{number}.example") == 503
        product.process.until(lambda: product.admin_status("/readyz") == 200, "readiness", pause=0.1)
        return product.process.rss()
    finally:
        assert product.stop() == 0


@pytest.mark.alone
def test_a_hundred_nextclouds_cost_at_most_60_kb_each(tmp_path: Path) -> None:
    assert (size_of(tmp_path / "many", 101) - size_of(tmp_path / "one", 1)) / 100 <= 60 * KB
