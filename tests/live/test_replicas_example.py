"""deploy/replicas: what the example for Compose says, and its load balancer in front of real HaRPs."""

from __future__ import annotations

import http.client
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harp.settings import examine
from tests.live.peers import path_of
from tests.live.processes import Process, free_port
from tests.live.product import Product
from tests.live.world import World

EXAMPLE = Path(__file__).parents[2] / "deploy/replicas"
CLIENT = "127.0.0.9"  # an address that is not the load balancer's


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())
    return document


def replicas() -> dict[str, Any]:
    return {name: one for name, one in compose()["services"].items() if name.startswith("harp")}


def test_the_example_sets_only_variables_that_harp_knows() -> None:
    known = {value.name for value in examine({}).values}
    for name, replica in replicas().items():
        assert set(replica["environment"]) <= known, name


def test_each_replica_of_the_example_is_one_of_its_own_and_known_to_the_load_balancer() -> None:
    text = (EXAMPLE / "haproxy.cfg").read_text()
    for name, replica in replicas().items():
        assert replica["environment"]["HP_CLUSTER_NAME"] == replica["hostname"] == name
        assert replica["environment"]["HP_CLUSTER_ADDRESS"] == f"{name}:8782"
        assert f"server {name} {name}:8780" in text
        assert f"server {name} {name}:8782" in text


def test_compose_understands_the_example() -> None:
    command = [path_of("docker-compose", "docker-compose"), "-f", str(EXAMPLE / "compose.yaml"), "config"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    services = yaml.safe_load(run.stdout)["services"]
    assert sorted(services) == ["balancer", "harp1", "harp2", "harp3", "valkey"]
    for name in replicas():
        assert services[name]["environment"]["HP_CLUSTER_URL"] == "redis://valkey:6379"
        assert services[name]["environment"]["HP_CLUSTER_NAME"] == name


def test_the_settings_of_the_example_have_no_problem() -> None:
    for replica in replicas().values():
        env = {key: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for key, value in replica["environment"].items()}
        given = {"HP_SHARED_KEY": "a key", "NC_INSTANCE_URL": "https://cloud.example.com"}
        assert examine({**env, **given}).problems == ()


@pytest.fixture
def products(world: World, tmp_path: Path) -> Iterator[list[Product]]:
    settings = {"HP_TRUSTED_PROXY_IPS": "127.0.0.1", "HP_ACCESS_LOG": "all"}
    found = [Product(tmp_path / name, world.nextcloud, **settings) for name in ("harp1", "harp2")]
    for product in found:
        product.start()
    yield found
    for product in found:
        if product.process.running:
            product.stop()


def balanced(products: list[Product], port: int, folder: Path) -> Process:
    """HAProxy as in the example, with the third replica away."""
    text = (EXAMPLE / "haproxy.cfg").read_text()
    text = text.replace("check port 8200", "check").replace("bind :8780", f"bind 127.0.0.1:{port}")
    text = text.replace("bind :8782", f"bind 127.0.0.1:{free_port()}")
    away = free_port()
    for name in ("harp1", "harp2", "harp3"):
        product = {one.directory.name: one for one in products}.get(name)
        for inner, ours in (("8780", product and product.http), ("8782", product and product.frp)):
            place = f"127.0.0.1:{ours or away} port {product.admin if product else away}"
            text = text.replace(f"{name}:{inner}", place)
    (folder / "haproxy.cfg").write_text(text)
    return Process([path_of("HAProxy", "haproxy"), "-db", "-f", str(folder / "haproxy.cfg")], folder / "haproxy.log")


def ask(port: int, path: str) -> int:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30, source_address=(CLIENT, 0))
    client.request("GET", path)
    answer = client.getresponse()
    answer.read()
    client.close()
    return answer.status


def test_a_replica_that_stops_costs_no_request_behind_the_load_balancer(
    products: list[Product], tmp_path: Path
) -> None:
    port, statuses, stop = free_port(), [], threading.Event()
    with balanced(products, port, tmp_path) as balancer:
        balancer.until_listening(port)
        balancer.until(lambda: ask(port, "/exapps/direct/public") == 200, "a ready replica")

        def load() -> None:
            while not stop.is_set():
                statuses.append(ask(port, "/exapps/direct/public"))

        loading = threading.Thread(target=load)
        loading.start()
        try:
            assert products[0].stop() == 0
            before = len(statuses)
            balancer.until(lambda: len(statuses) > before + 50, "load after it")
        finally:
            stop.set()
            loading.join()
        assert set(statuses) == {200}
        assert products[1].served("/exapps/direct/public")[-1]["address"] == CLIENT
