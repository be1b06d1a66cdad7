"""An operator with the default log level: every outage is told, once, with its cause; and no secret at any level."""

from __future__ import annotations

import base64
import http.client
import json
import signal
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from harp.net import certificates
from tests.live.frp import frpc
from tests.live.processes import Process, free_port
from tests.live.product import KEY, Product, basic, running
from tests.live.tunnels import OWN, SHIPPED, start_tunnel
from tests.live.world import TUNNEL_PORT, World

DEFAULT = {"HP_LOG_LEVEL": "warning"}


def events(product: Product) -> list[dict[str, Any]]:
    """The log so far, without remarks on the configuration."""
    lines = [json.loads(line) for line in product.process.text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] != "doubtful setting"]


def named(product: Product, event: str) -> list[dict[str, Any]]:
    """The lines of this event; waits until there is one."""
    product.process.until(lambda: any(line["event"] == event for line in events(product)), f"log line {event}")
    return [line for line in events(product) if line["event"] == event]


def connected(tunnel: Process) -> bool:
    return "start proxy success" in tunnel.text() or "serves" in tunnel.text()


@pytest.fixture
def socket() -> Iterator[Path]:
    with TemporaryDirectory(prefix="harp-out-") as directory:
        yield Path(directory) / "app.sock"


def test_an_exapp_without_a_tunnel_or_a_listener_is_one_warning_each(tmp_path: Path) -> None:
    with running(tmp_path, "http://127.0.0.1:9", HP_TUNNEL_HOLD="0", **DEFAULT) as product:
        product.register("away", "127.0.0.1", 23007)
        product.register("crashed", "127.0.0.1", free_port())
        for _ in range(3):
            assert product.status("/exapps/away/x") == 503
            assert product.status("/exapps/crashed/x") == 503
        lines = named(product, "request not served")
        assert sorted((line["app"], line["status"]) for line in lines) == [("away", 503), ("crashed", 503)]
        assert "no tunnel is connected for port 23007" in lines[0]["reason"]
        assert all(line["request_id"] for line in lines)


def test_a_nextcloud_that_is_away_and_a_wrong_key_are_told(tmp_path: Path) -> None:
    with running(tmp_path, "http://127.0.0.1:9", **DEFAULT) as product:
        assert product.status("/exapps/hello/x") == 503
        assert product.status("/exapps/app_api/info", harp_shared_key="another key") == 401
        assert named(product, "Nextcloud unavailable")
        assert "HP_SHARED_KEY" in named(product, "shared key refused")[0]["fix"]
        assert "another key" not in product.process.text()


def test_our_own_key_being_wrong_is_told(world: World, tmp_path: Path) -> None:
    with running(tmp_path, world.nextcloud, HP_SHARED_KEY="not the key of Nextcloud", **DEFAULT) as product:
        assert product.status("/exapps/hello/public") == 404
        assert named(product, "Nextcloud refuses the shared key or knows no ExApp at all")


@pytest.mark.parametrize("client", [SHIPPED, OWN])
def test_a_tunnel_that_is_lost_and_comes_back_is_told(world: World, tmp_path: Path, client: str) -> None:
    with running(tmp_path, world.nextcloud, **DEFAULT) as product:
        first = start_tunnel(product, client, "hello", TUNNEL_PORT, world.socket)
        first.until(lambda: product.status("/exapps/hello/public") == 200, "tunnel")
        first.signal(signal.SIGKILL)
        (lost,) = named(product, "tunnel lost")
        assert (lost["source"], lost["port"]) == ("hello", TUNNEL_PORT)
        first.wait()
        with start_tunnel(product, client, "hello", TUNNEL_PORT, world.socket) as second:
            second.until(lambda: product.status("/exapps/hello/public") == 200, "tunnel")
            (back,) = named(product, "tunnel back")
            assert back["away"] >= 0
            assert product.stop() == 0
            assert len(named(product, "tunnel lost")) == 1


def test_a_ban_that_begins_and_ends_is_told_by_the_address_of_the_access_lines(tmp_path: Path) -> None:
    limits = {"HP_BLACKLIST_COUNT": "3", "HP_BLACKLIST_WINDOW": "1"}
    with running(tmp_path, "http://127.0.0.1:9", HP_ACCESS_LOG="errors", **limits, **DEFAULT) as product:
        headers = {"harp_shared_key": "another key", "x_forwarded_for": "192.0.2.7"}
        for status in (401, 401, 401, 429):
            assert product.status("/exapps/app_api/info", **headers) == status
        (begun,) = named(product, "address banned")
        (ended,) = named(product, "ban ended")
        product.served("/exapps/app_api/info")
        product.process.until(lambda: len(product.served("/exapps/app_api/info")) == 4, "four access lines")
        lines = product.served("/exapps/app_api/info")
        assert {line["counted"] for line in lines} == {begun["source"]} == {ended["source"]} == {"192.0.2.7"}
        assert {line["peer"] for line in lines} == {"127.0.0.1"}


def test_a_certificate_near_its_end_is_told_at_the_start_and_after_hup(tmp_path: Path) -> None:
    product = Product(tmp_path, "http://127.0.0.1:9", **DEFAULT)
    for days in (5, 3):
        certificates.ensure(tmp_path / f"made{days}", 10, datetime.now(UTC) - timedelta(days=10 - days, minutes=-5))
    pair = [(tmp_path / f"made{days}/server.crt", tmp_path / f"made{days}/server.key") for days in (5, 3)]
    first, second = (certificate.read_bytes() + key.read_bytes() for certificate, key in pair)
    (product.certs / "cert.pem").write_bytes(first)
    product.start()
    (line,) = named(product, "certificate ends soon")
    assert (Path(line["file"]).name, line["days"]) == ("cert.pem", 5)
    (product.certs / "cert.pem").write_bytes(second)
    product.process.signal(signal.SIGHUP)
    product.process.until(lambda: len(named(product, "certificate ends soon")) == 2, "another warning")
    assert named(product, "certificate ends soon")[1]["days"] == 3
    assert product.stop() == 0


def test_no_secret_reaches_a_log_at_debug_level(world: World, tmp_path: Path, socket: Path) -> None:
    """One of everything that carries secrets: keys, passwords, cookies, tokens, logins to registries, bundles."""
    limits = {"HP_BLACKLIST_COUNT": "1000", "HP_DOCKER_HOST": f"unix://{socket}"}
    with running(tmp_path, world.nextcloud, HP_LOG_LEVEL="debug", **limits) as product:
        secret = "a-very-secret-thing"
        encoded = base64.b64encode(f"user:{secret}".encode()).decode()
        product.secrets |= {secret, encoded, "secret of hello", "secret of direct", basic("", "secret of hello")[6:]}
        product.register("own", "127.0.0.1", 23009)
        with start_tunnel(product, SHIPPED, "hello", TUNNEL_PORT, world.socket) as tunnel:
            tunnel.until(lambda: product.status("/exapps/hello/public") == 200, "tunnel")
            lines = {"authorization": f"Basic {encoded}", "cookie": f"oc_sessionPassphrase={secret}; a={secret}"}
            for path in ("/exapps/hello/user", f"/exapps/direct/public?token={secret}", "/exapps/own/x"):
                product.status(path, **lines)
            key = {"harp_shared_key": KEY}
            signed = {"authorization_app_api": encoded, "ex_app_id": "own", "ex_app_version": "1", "aa_version": "32"}
            product.status("/exapps/own/heartbeat", **key, **signed, ex_app_host="127.0.0.1", ex_app_port="23009")
            product.status("/exapps/app_api/info", harp_shared_key=secret)
            engine = {"docker_engine_port": "24000", "x_registry_auth": encoded}
            product.status("/exapps/app_api/v1.44/_ping", **key, **engine, authorization=f"Basic {encoded}")
            body = {"exapp_token": secret, "environment_variables": [f"APP_SECRET={secret}"], "name": "own"}
            create(product, body)
            start_wrong = start_tunnel_with(product, tunnel.log.parent, secret, world.socket)
            with start_wrong:
                start_wrong.until(lambda: named(product, "tunnel refused") != [], "refusal")
    text = product.process.text()
    for part in ("frp message received", "request", "strike counted", "control call refused"):
        assert part in text, part


def create(product: Product, body: Mapping[str, object]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", product.http, timeout=10)
    headers = {"harp-shared-key": KEY, "docker-engine-port": "24000", "content-type": "application/json"}
    connection.request("POST", "/exapps/app_api/docker/exapp/create", json.dumps(body), headers)
    connection.getresponse().read()
    connection.close()


def start_tunnel_with(product: Product, directory: Path, token: str, socket: Path) -> Process:
    """A frpc whose token is another one."""
    configuration = (directory / "hello.toml").read_text().replace(KEY, token)
    (directory / "wrong.toml").write_text(configuration)
    return Process([frpc(SHIPPED), "-c", str(directory / "wrong.toml")], directory / "wrong-tunnel.log")
