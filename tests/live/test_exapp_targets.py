"""Whoever writes a record, or listens first: engines, HaRP itself and other ExApps' tunnels are out of reach."""

from __future__ import annotations

import asyncio
import http.client
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.live.frp import ended, exapp_toml, frpc, start_frpc, tls_of
from tests.live.processes import Process, free_port
from tests.live.product import KEY, Product, running
from tests.live.recorder import RequestRecorder

VERSION = "0.61.1"


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    environment = {"HP_TUNNEL_HOLD": "0s", "HP_TUNNEL_CLAIMS": "warn"}
    with running(tmp_path_factory.mktemp("harp"), "http://127.0.0.1:1", **environment) as product:
        yield product


@pytest.fixture
def directory() -> Iterator[Path]:
    with TemporaryDirectory(prefix="harp-targets-") as path:
        yield Path(path)


@asynccontextmanager
async def listener(where: Path | int) -> AsyncIterator[RequestRecorder]:
    """A service on a unix socket or on a port of loopback that notes what it is sent."""
    recorder = RequestRecorder(0)
    if isinstance(where, Path):
        server = await asyncio.start_unix_server(recorder.serve, where)
    else:
        server = await asyncio.start_server(recorder.serve, "127.0.0.1", where)
    try:
        yield recorder
    finally:
        server.close()
        recorder.close()
        await server.wait_closed()


async def ask(product: Product, method: str, path: str, **headers: str | int) -> tuple[int, str]:
    """Status and text of an answer."""

    def exchange() -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", product.http, timeout=15)
        names = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        connection.request(method, path, headers=names)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    return await asyncio.to_thread(exchange)


def signed(host: str, port: int) -> dict[str, str | int]:
    """The headers with which AppAPI signs a request, for an ExApp that Nextcloud does not know."""
    return {
        "harp_shared_key": KEY,
        "ex_app_id": "noneexist",
        "ex_app_version": "1",
        "ex_app_host": host,
        "ex_app_port": port,
        "authorization_app_api": "eDp5",
    }


def tunnel(product: Product, directory: Path, name: str, port: int, socket: Path, **more: object) -> Process:
    """A stock frpc that has its claim."""
    tls = {key.replace(".", "__"): value for key, value in tls_of(product.certs / "frp").items()}
    process = start_frpc(VERSION, exapp_toml(product.frp, name, port, socket, KEY, **tls, **more), directory, name)
    process.until(lambda: "start proxy success" in process.text(), "tunnel")
    return process


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0"])
async def test_a_signed_call_does_not_reach_an_engine_through_its_tunnel(
    product: Product, directory: Path, host: str
) -> None:
    async with listener(directory / "engine.sock") as engine:
        with ended(tunnel(product, directory, "gpu-box", 24001, directory / "engine.sock")):
            path = "/exapps/noneexist/containers/create?name=evil"
            status, text = await ask(product, "POST", path, **signed(host, 24001))
    assert status == 503
    assert "an engine's" in text
    assert engine.requests == []


@pytest.mark.parametrize("port", [24000, 24001, 24099])
async def test_a_pushed_record_does_not_lead_to_an_engine_or_to_ourselves(product: Product, port: int) -> None:
    for target in (port, product.admin, product.http, product.frp):
        with pytest.raises(AssertionError, match="400"):
            await asyncio.to_thread(product.register, "evil", "127.0.0.1", target)


async def test_a_signed_call_does_not_reach_the_admin_listener(product: Product) -> None:
    status, text = await ask(product, "GET", "/exapps/noneexist/healthz", **signed("127.0.0.1", product.admin))
    assert status == 503
    assert "listeners" in text


async def test_whoever_listens_on_loopback_first_is_neither_the_exapp_nor_the_engine(product: Product) -> None:
    async with listener(23011) as exapp, listener(24011) as engine:
        await asyncio.to_thread(product.register, "grabbed", "127.0.0.1", 23011)
        status, _ = await ask(product, "GET", "/exapps/grabbed/x", cookie="oc_sessionPassphrase=alice")
        assert status == 503
        ping = "/exapps/app_api/v1.41/_ping"
        status, _ = await ask(product, "GET", ping, harp_shared_key=KEY, docker_engine_port=24011)
        assert status == 503
    assert exapp.requests == engine.requests == []


async def test_an_exapp_installed_by_hand_is_reached_on_a_port_of_its_own(product: Product) -> None:
    port = free_port()
    async with listener(port) as exapp:
        await asyncio.to_thread(product.register, "manual", "127.0.0.1", port)
        assert (await ask(product, "GET", "/exapps/manual/x"))[0] == 200
    assert len(exapp.requests) == 1


async def test_an_exapp_does_not_answer_for_another_one_with_the_same_port(product: Product, directory: Path) -> None:
    async with listener(directory / "a.sock") as first:
        with ended(tunnel(product, directory, "porta", 23055, directory / "a.sock")):
            for app in ("porta", "portb"):
                await asyncio.to_thread(product.register, app, "127.0.0.1", 23055)
            assert (await ask(product, "GET", "/exapps/porta/x"))[0] == 200
            status, text = await ask(product, "GET", "/exapps/portb/secret", **signed_as("portb"))
    assert status == 503
    assert "port 23055 is held by the tunnel of porta" in text
    assert len(first.requests) == 1


def signed_as(app: str) -> dict[str, str | int]:
    return {**signed("127.0.0.1", 23055), "ex_app_id": app}


async def test_a_port_that_was_given_back_is_not_served_by_its_old_tunnel(product: Product, directory: Path) -> None:
    admin = free_port()
    async with listener(directory / "a.sock") as exapp:
        process = tunnel(product, directory, "app0", 23056, directory / "a.sock", webServer__port=admin)
        with ended(process):
            await asyncio.to_thread(product.register, "app0", "127.0.0.1", 23056)
            assert (await ask(product, "GET", "/exapps/app0/x"))[0] == 200
            configuration = directory / "app0.toml"
            configuration.write_text(configuration.read_text().partition("[[proxies]]")[0])
            reload = [frpc(VERSION), "reload", "-c", str(configuration)]
            await asyncio.to_thread(subprocess.run, reload, check=True, capture_output=True)
            status, text = 200, ""
            for _ in range(50):  # frpc sends CloseProxy after it has answered the command
                status, text = await ask(product, "GET", "/exapps/app0/x")
                if status != 200:
                    break
                await asyncio.sleep(0.05)
            seen = len(exapp.requests)
            assert status == 503, text
            assert (await ask(product, "GET", "/exapps/app0/x"))[0] == 503
    assert len(exapp.requests) == seen
