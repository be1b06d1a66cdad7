"""Remote engines come and go with `harp engine`: one is removed, one gets another key, the third notices nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.live.frp import frpc
from tests.live.processes import Process
from tests.live.product import HARP, KEY, Product, running
from tests.live.tunnels import SHIPPED
from tests.live.world import World

ENGINES = ("gpu1", "gpu2", "gpu3")


@pytest.fixture
def product(world: World, tmp_path: Path) -> Iterator[Product]:
    with running(tmp_path / "harp", world.nextcloud, HP_LOG_LEVEL="info") as product:
        yield product


def engine(product: Product, *arguments: str) -> str:
    argv = [*HARP, "engine", *arguments]
    done = subprocess.run(argv, env=product.environment, capture_output=True, text=True, timeout=60, check=True)
    assert KEY not in done.stdout + done.stderr
    return done.stdout + done.stderr


def connect(bundle: Path) -> Process:
    """What the bundle's instructions say, with a stock frpc."""
    with (bundle / "log").open("ab"):
        return Process(["sh", "-c", f'cd "{bundle}" && exec "{frpc(SHIPPED)}" -c frpc.toml'], bundle / "log")


def succeeded(client: Process) -> bool:
    return "start proxy success" in client.text()


def test_one_is_removed_one_gets_another_key_and_the_third_notices_nothing(product: Product, tmp_path: Path) -> None:
    bundles = {name: tmp_path / name for name in ENGINES}
    address = f"127.0.0.1:{product.frp}"
    for name, bundle in bundles.items():
        engine(product, "add", name, "--address", address, "--output", str(bundle))
        assert KEY not in (bundle / "frpc.toml").read_text()
    with ExitStack() as stack:
        clients = {name: stack.enter_context(connect(bundle)) for name, bundle in bundles.items()}
        for name, client in clients.items():
            client.until(partial(succeeded, client), f"tunnel of {name}")

        assert "Its tunnel was ended." in engine(product, "remove", "gpu1")
        refused = "send Login request to plugin error"  # what a wrong token is answered with
        clients["gpu1"].until(lambda: refused in clients["gpu1"].text(), "refusal")

        again = tmp_path / "again"
        told = engine(product, "rotate", "gpu2", "--address", address, "--output", str(again))
        assert "Its tunnel was ended." in told
        clients["gpu2"].until(lambda: refused in clients["gpu2"].text(), "refusal")
        renewed = stack.enter_context(connect(again))
        renewed.until(lambda: succeeded(renewed), "tunnel")

        assert clients["gpu3"].text().count("start proxy success") == 1
        assert refused not in clients["gpu3"].text()


def test_who_has_the_shared_key_is_not_taken_for_an_engine_with_a_key_of_its_own(
    product: Product, tmp_path: Path
) -> None:
    bundle = tmp_path / "gpu1"
    engine(product, "add", "gpu1", "--address", f"127.0.0.1:{product.frp}", "--output", str(bundle))
    configuration = (bundle / "frpc.toml").read_text()
    token = next(line for line in configuration.splitlines() if "token" in line and "engine/" in line)
    (bundle / "frpc.toml").write_text(configuration.replace(token, f'metadatas.token = "{KEY}"'))
    with connect(bundle) as client:
        client.until(lambda: "the engine gpu1 has a key of its own" in client.text(), "refusal")


def test_an_engine_that_is_not_there_cannot_be_removed(product: Product) -> None:
    done = subprocess.run(
        [*HARP, "engine", "remove", "gpu9"], env=product.environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "no engine is named gpu9" in done.stderr) == (1, True)
