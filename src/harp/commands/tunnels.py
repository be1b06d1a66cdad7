"""`harp tunnels`: the tunnel clients that are connected now."""

from __future__ import annotations

import argparse

from msgspec import Struct

from harp.commands.admin import of_environment
from harp.commands.arguments import add_instance, asks_harp
from harp.commands.tables import ago, of_instances
from harp.status.snapshot import TunnelLine

HEADERS = ("port", "name", "address", "host", "client", "up for", "round trip", "streams", "received", "sent")


class _Tunnels(Struct):
    tunnels: list[TunnelLine]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    asks_harp(parser)
    parser.add_argument("--json", action="store_true", help="print what the admin API answers (/api/v1/tunnels)")
    add_instance(parser)


def main(options: argparse.Namespace) -> int:
    """Print the tunnels; return the exit code."""
    admin = of_environment(options.instance)
    if options.json:
        print(admin.fetch("tunnels").decode())
        return 0
    tunnels = sorted(admin.read("tunnels", _Tunnels).tunnels, key=lambda tunnel: (tunnel.instance, tunnel.ports))
    print(of_instances(HEADERS, tunnels, _row) if tunnels else "No tunnel is connected.")
    return 0


def _row(tunnel: TunnelLine) -> tuple[str, ...]:
    return (
        ", ".join(map(str, tunnel.ports)) or "none",
        ", ".join(tunnel.names) or "none",
        tunnel.address,
        tunnel.hostname,
        f"{tunnel.client} {tunnel.system}",
        ago(tunnel.since),
        "" if tunnel.round_trip is None else f"{tunnel.round_trip * 1000:.1f} ms",
        str(tunnel.streams),
        f"{tunnel.received / 1e6:.1f} MB" if tunnel.mux else "",
        f"{tunnel.sent / 1e6:.1f} MB" if tunnel.mux else "",
    )
