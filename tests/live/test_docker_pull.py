"""A pull from a real registry, through HaRP, line by line."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from random import Random

import pytest

from tests.live.daemon import Daemon, running_daemon
from tests.live.engine import Engine
from tests.live.product import KEY
from tests.live.registry import running_registry
from tests.live.trees import tar_of

pytestmark = pytest.mark.timeout(300)

SIZE = 24 << 20  # bytes that do not compress


@pytest.fixture(scope="module")
def daemon(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running_daemon(tmp_path_factory.mktemp("daemon"), engine) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry."""
    with running_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="module")
def image(engine: Engine, registry: str) -> Iterator[str]:
    """An image that only the registry has."""
    reference = f"{registry}/exapp/large:1.0.0-cpu"
    engine.import_image(reference, tar_of({"content": Random().randbytes(SIZE)}))
    name, _, tag = reference.rpartition(":")
    engine.push(name, tag)
    engine.call("DELETE", f"/images/{reference}").ok(200)
    yield reference
    engine.call("DELETE", f"/images/{reference}").ok(200, 404)


def test_a_pull_is_told_while_it_goes_on(daemon: Daemon, image: str) -> None:
    assert daemon.appapi.inspect_image(image).status == 404
    connection = http.client.HTTPConnection("127.0.0.1", daemon.product.http, timeout=60)
    headers = {"harp-shared-key": KEY, "docker-engine-port": "24000"}
    connection.request("POST", f"/exapps/app_api/v1.44/images/create?fromImage={image}", headers=headers)
    answer = connection.getresponse()
    assert answer.status == 200
    lines, arrived = [], []
    while line := answer.readline():
        lines.append(json.loads(line))
        arrived.append(time.monotonic())
    connection.close()
    said = [line.get("status", "") for line in lines]
    assert said[0].startswith("Pulling from exapp/large")
    assert any(status == "Downloading" for status in said)
    assert said[-1].startswith("Status: Downloaded newer image")
    assert arrived[-1] - arrived[0] > 0.05, "all of it came at the end"
    daemon.appapi.inspect_image(image).ok(200)


def test_a_tag_that_is_not_there_is_said_in_the_engines_words(daemon: Daemon, registry: str) -> None:
    answer = daemon.appapi.docker("POST", f"/v1.44/images/create?fromImage={registry}/exapp/large:nosuch")
    assert answer.status == 404
    assert b"nosuch" in answer.body[:120]
