"""Tunnel clients as real processes: our own `harp tunnel`, or stock frpc, configured as ExApps do it (A 8.1)."""

from __future__ import annotations

from pathlib import Path

from tests.live.peers import require
from tests.live.processes import Process
from tests.live.product import HARP, KEY, Product

CACHE = Path(__file__).parents[2] / ".cache" / "frp"  # where frp/build puts its programs
OWN = "harp tunnel"
SHIPPED = "0.61.1"  # the frpc inside today's ExApps


def configuration(product: Product, name: str, port: int, socket: Path) -> str:
    """frpc.toml of an ExApp that listens on a unix socket; mutual TLS with HaRP's own certificates."""
    frp = product.certs / "frp"
    return f"""
serverAddr = "127.0.0.1"
serverPort = {product.frp}
loginFailExit = false
transport.tls.enable = true
transport.tls.certFile = "{frp}/client.crt"
transport.tls.keyFile = "{frp}/client.key"
transport.tls.trustedCaFile = "{frp}/ca.crt"
transport.tls.serverName = "harp.nc"
metadatas.token = "{KEY}"

[[proxies]]
name = "{name}"
type = "tcp"
remotePort = {port}
[proxies.plugin]
type = "unix_domain_socket"
unixPath = "{socket}"
"""


def start_tunnel(product: Product, client: str, name: str, port: int, socket: Path) -> Process:
    """Start `client`, OWN or a version of frpc, for one ExApp. Skips when that frpc is not built."""
    file = product.directory / f"{name}.toml"
    file.write_text(configuration(product, name, port, socket))
    if client == OWN:
        argv = [*HARP, "tunnel", "-c", str(file)]
    else:
        program = str(CACHE / client / "frpc")
        require(f"frpc {client} (make frp)", program)
        argv = [program, "-c", str(file)]
    return Process(argv, product.directory / f"{name}-tunnel.log")
