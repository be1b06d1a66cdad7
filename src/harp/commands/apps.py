"""`harp apps`: the ExApps that the running HaRP knows, how they are reached, and what they have served."""

from __future__ import annotations

import argparse

from msgspec import Struct

from harp.commands.admin import of_environment
from harp.commands.arguments import add_instance, asks_harp
from harp.commands.tables import ago, of_instances
from harp.status.snapshot import AppLine

HEADERS = ("app", "version", "address", "tunnel", "routes", "requests", "4xx", "5xx", "average", "sent", "answered")


class _Apps(Struct):
    apps: list[AppLine]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    asks_harp(parser)
    parser.add_argument("--json", action="store_true", help="print what the admin API answers (/api/v1/apps)")
    add_instance(parser)


def main(options: argparse.Namespace) -> int:
    """Print the ExApps; return the exit code."""
    admin = of_environment(options.instance)
    if options.json:
        print(admin.fetch("apps").decode())
        return 0
    apps = admin.read("apps", _Apps).apps
    print(of_instances(HEADERS, apps, _row) if apps else "No ExApp is known yet: HaRP learns of one when it is used.")
    return 0


def _row(line: AppLine) -> tuple[str, ...]:
    traffic = line.traffic
    timed = sum(traffic.buckets)
    return (
        line.app,
        line.version,
        f"{line.host}:{line.port}",
        line.tunnel or "none needed",
        str(len(line.routes)),
        str(sum(traffic.statuses.values())),
        str(traffic.statuses["4xx"]),
        str(traffic.statuses["5xx"]),
        f"{traffic.seconds / timed * 1000:.1f} ms" if timed else "",
        f"{traffic.sent / 1e6:.1f} MB",
        "never" if line.answered is None else f"{ago(line.answered)} ago",
    )
