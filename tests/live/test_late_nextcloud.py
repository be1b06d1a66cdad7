"""HaRP, an ExApp with a key of its own, and a Nextcloud that starts last, as `docker compose up -d` may have it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest

from harp.policy.keys import own_key
from tests.live.frp import ended, exapp_toml, frpc, tls_of
from tests.live.processes import Process, free_port
from tests.live.product import HARP, KEY, running
from tests.live.tunnels import OWN, SHIPPED
from tests.live.world import TUNNEL_PORT, World

LATE = 3.0  # seconds, in real time: Nextcloud is away, which nothing can tell
SOON = 4.0  # seconds from Nextcloud's start, which is in them


@pytest.mark.alone
@pytest.mark.parametrize("client", [OWN, SHIPPED])
def test_an_exapp_is_served_soon_after_its_nextcloud_has_started(tmp_path: Path, client: str) -> None:
    port = free_port()
    with (
        tempfile.TemporaryDirectory(prefix="harp-late-") as short,
        running(tmp_path, f"http://127.0.0.1:{port}", HP_EXAPP_KEYS="derived") as product,
    ):
        tls = {key.replace(".", "__"): value for key, value in tls_of(product.certs / "frp").items()}
        socket = Path(short) / "hello.sock"
        file = tmp_path / "frpc.toml"
        file.write_text(exapp_toml(product.frp, "hello", TUNNEL_PORT, socket, own_key(KEY, "hello"), **tls))
        argv = [*HARP, "tunnel"] if client == OWN else [frpc(client)]
        with ended(Process([*argv, "-c", str(file)], tmp_path / "frpc.log")):
            product.process.until(lambda: "tunnel connected" in product.process.text(), "login")
            time.sleep(LATE)
            began = time.monotonic()
            world = World(Path(short), port)
            try:
                product.process.until(
                    lambda: product.status("/exapps/hello/public") == 200, "answer through the tunnel"
                )
                assert time.monotonic() - began < SOON
            finally:
                world.process.stop()
        assert "tunnel claim refused" not in product.process.text()
