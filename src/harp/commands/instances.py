"""`harp instances`: the Nextclouds that the running HaRP serves, and the state of each."""

from __future__ import annotations

import argparse

import msgspec
from msgspec import Struct

from harp.commands.admin import of_environment
from harp.commands.arguments import asks_harp
from harp.commands.tables import table
from harp.status.snapshot import InstanceLine

HEADERS = ("instance", "hosts", "Nextcloud", "connections", "running", "waiting", "bans", "strikes", "state")


class _Snapshot(Struct):
    instances: list[InstanceLine]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    asks_harp(parser)
    parser.add_argument("--json", action="store_true", help="print them as the admin API does (/api/v1/snapshot)")


def main(options: argparse.Namespace) -> int:
    """Print the instances; return the exit code."""
    lines = of_environment().read("snapshot", _Snapshot).instances
    if options.json:
        print(msgspec.json.encode({"instances": lines}).decode())
    else:
        print(table(HEADERS, map(_row, lines)) if lines else "HP_INSTANCES_FILE is not set: there is one Nextcloud.")
    return 0


def _row(line: InstanceLine) -> tuple[str, ...]:
    condition = line.nextcloud.condition
    return (
        line.instance,
        ", ".join(line.hosts),
        line.nextcloud.url,
        str(line.connections),
        str(line.running),
        str(line.waiting),
        str(line.ban_totals.now),
        str(line.ban_totals.strikes),
        "not asked yet" if condition is None else condition.detail,
    )
