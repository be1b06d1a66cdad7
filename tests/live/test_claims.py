"""Whose tunnel may offer what: own keys of ExApps and strict claims, with real tunnel clients."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from harp.policy.keys import own_key
from harp.state.engine_names import EngineNames
from tests.live.frp import REFUSAL, ended, exapp_toml, frpc, tls_of
from tests.live.processes import Process
from tests.live.product import HARP, KEY, Product, running
from tests.live.tunnels import OWN, SHIPPED
from tests.live.world import TUNNEL_PORT, World

Connect = Callable[[str, str, int, str], AbstractContextManager[Process]]

HELLO_KEY = own_key(KEY, "hello")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A Nextcloud that knows `hello`, on port 23000, and its ExApp."""
    with tempfile.TemporaryDirectory(prefix="harp-claims-") as path:
        world = World(Path(path))
        yield world
        world.process.stop()


@pytest.fixture(scope="module")
def product(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A strict HaRP."""
    strict = {"HP_TUNNEL_CLAIMS": "strict", "HP_EXAPP_KEYS": "derived"}
    with running(tmp_path_factory.mktemp("harp"), world.nextcloud, **strict) as product:
        yield product


@pytest.fixture
def connect(world: World, product: Product) -> Connect:
    """Starts tunnel clients: program, name, port and token."""

    @contextmanager
    def start(client: str, name: str, port: int, token: str) -> Iterator[Process]:
        tls = {key.replace(".", "__"): value for key, value in tls_of(product.certs / "frp").items()}
        file = product.directory / f"{name}-{port}.toml"
        file.write_text(exapp_toml(product.frp, name, port, world.socket, token, **tls))
        argv = [*HARP, "tunnel"] if client == OWN else [frpc(client)]
        process = Process([*argv, "-c", str(file)], product.directory / f"{name}-{port}.log")
        with ended(process):
            yield process

    return start


@pytest.mark.parametrize("client", [OWN, SHIPPED])
@pytest.mark.parametrize("token", [KEY, HELLO_KEY], ids=["shared key", "own key"])
def test_an_exapp_serves_with_the_shared_key_and_with_its_own(
    connect: Connect, product: Product, client: str, token: str
) -> None:
    with connect(client, "hello", TUNNEL_PORT, token) as process:
        process.until(lambda: product.status("/exapps/hello/public") == 200, "answer through the tunnel")


@pytest.mark.parametrize("client", [OWN, SHIPPED])
@pytest.mark.parametrize(
    ("name", "port", "token", "reason"),
    [
        ("other", 23001, HELLO_KEY, "this key is good for the tunnel of the ExApp hello only"),
        ("engine", 24001, HELLO_KEY, "this key is good for the tunnel of the ExApp hello only"),
        ("hello", 23005, HELLO_KEY, "Nextcloud gave the ExApp hello port 23000, not 23005"),
        ("hello", 23006, KEY, "Nextcloud gave the ExApp hello port 23000, not 23006"),
        ("stranger", 23002, KEY, "Nextcloud knows no ExApp stranger"),
    ],
)
def test_a_claim_that_does_not_fit_is_refused_and_the_client_reads_why(
    connect: Connect, client: str, name: str, port: int, token: str, reason: str
) -> None:
    with connect(client, name, port, token) as process:
        process.until(lambda: reason in process.text(), "refusal")


def test_a_key_that_is_made_up_does_not_log_in(connect: Connect) -> None:
    with connect(SHIPPED, "hello", TUNNEL_PORT, own_key("a guess", "hello")) as process:
        process.until(lambda: REFUSAL in process.text(), "refusal")


def test_an_engine_that_was_named_needs_no_record(connect: Connect, product: Product) -> None:
    with EngineNames(product.certs / "frp").changing() as engines:
        engines[24001] = "gpu-box"
    with connect(SHIPPED, "gpu-box", 24001, KEY) as process:
        process.until(lambda: "start proxy success" in process.text(), "claim")


def test_the_port_of_an_engine_is_refused_to_whoever_holds_the_shared_key(connect: Connect, product: Product) -> None:
    with EngineNames(product.certs / "frp").changing() as engines:
        engines[24002] = "gpu-box"
    with connect(SHIPPED, "evil", 24002, KEY) as process:
        process.until(lambda: "port 24002 belongs to the engine gpu-box" in process.text(), "refusal")
    with connect(SHIPPED, "evil", 24007, KEY) as process:
        process.until(lambda: "no engine is registered for port 24007" in process.text(), "refusal")
    assert "tunnel claim refused" in product.process.text()
