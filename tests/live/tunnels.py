"""A tunnel client as a real process for one ExApp: our own `harp tunnel`, or stock frpc."""

from __future__ import annotations

from pathlib import Path

from tests.live.frp import EXAPP_VERSION, exapp_toml, frpc, tls_of
from tests.live.processes import Process
from tests.live.product import HARP, KEY, Product

OWN = "harp tunnel"
SHIPPED = EXAPP_VERSION


def configuration(certificates: Path, server_port: int, name: str, remote_port: int, socket: Path) -> str:
    """frpc.toml of an ExApp on a unix socket (A 8.1), with mutual TLS by the files of `certificates`."""
    tls = {key.replace(".", "__"): value for key, value in tls_of(certificates).items()}
    return exapp_toml(server_port, name, remote_port, socket, KEY, **tls)


def start_tunnel(product: Product, client: str, name: str, remote_port: int, socket: Path) -> Process:
    """Start `client`, OWN or a version of frpc; skips when that frpc is not built."""
    argv = [*HARP, "tunnel"] if client == OWN else [frpc(client)]
    file = product.directory / f"{name}.toml"
    file.write_text(configuration(product.certs / "frp", product.frp, name, remote_port, socket))
    return Process([*argv, "-c", str(file)], product.directory / f"{name}-tunnel.log")
