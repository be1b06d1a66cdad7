"""HaRP as compose.yaml starts it, and Traefik in front of it, which learns of HaRP from the engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blocks import ROOT, blocks
from tests.live.docker_command import docker, eventually
from tests.live.engine import Engine
from tests.live.processes import free_port
from tests.live.shell import script
from tests.live.traefik import reaches_harp, start_traefik

pytestmark = pytest.mark.timeout(300)

HEALTHY = "docker exec appapi-harp harp health"


def the(page: str, words: str) -> str:
    """Return the text of the block of a page with these words."""
    (found,) = (block.text for block in blocks(page) if words in block.text)
    return found


@pytest.fixture
def checkout(engine: Engine, tmp_path: Path) -> Iterator[Path]:
    """A directory with compose.yaml, an image of the same checkout, and the key as the page makes it."""
    text = (ROOT / "compose.yaml").read_text()
    text = text.replace("- /var/run/docker.sock:", f"- {engine.socket}:").replace("127.0.0.1:8780:", "127.0.0.1::")
    (tmp_path / "compose.yaml").write_text(text)
    path = docker(engine, tmp_path)
    try:
        script("docker build -t appapi-harp .", tmp_path, path)
        script(the("docs/install.md", "openssl rand"), tmp_path, path)
        yield tmp_path
    finally:
        engine.clear()


def test_compose_starts_harp_as_the_page_says(checkout: Path) -> None:
    script(the("docs/install.md", "docker compose"), checkout, checkout / "bin")
    eventually(HEALTHY, checkout, checkout / "bin")


def test_traefik_finds_harp_by_its_labels(engine: Engine, checkout: Path) -> None:
    (checkout / "traefik.yaml").write_text(the("docs/reverse-proxies.md", "traefik.enable"))
    script(the("docs/reverse-proxies.md", "docker compose"), checkout, checkout / "bin")
    eventually(HEALTHY, checkout, checkout / "bin")
    port = free_port()
    providers = f'{{docker: {{endpoint: "unix://{engine.socket}", exposedByDefault: false}}}}'
    with start_traefik(checkout, port, providers) as process:
        process.until_listening(port)
        process.until(lambda: reaches_harp(port, "cloud.example.com"), "route")
        assert not reaches_harp(port, "elsewhere.example.com")
