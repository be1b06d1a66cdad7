"""`harp bans`: the addresses that are banned, and why; `harp bans lift ADDRESS` ends a ban."""

from __future__ import annotations

import argparse

from msgspec import Struct

from harp.commands.admin import of_environment
from harp.commands.arguments import add_instance, asks_harp
from harp.commands.tables import of_instances, span
from harp.status.snapshot import BanLine

HEADERS = ("address", "ends in", "last strike")


class _Bans(Struct):
    bans: list[BanLine]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    asks_harp(parser)
    parser.add_argument("--json", action="store_true", help="print what the admin API answers (/api/v1/bans)")
    add_instance(parser)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action")
    lift = actions.add_parser("lift", help="end a ban and forget the strikes of its address")
    lift.add_argument("address", metavar="ADDRESS", help="as `harp bans` and the log name it")


def main(options: argparse.Namespace) -> int:
    """Print the bans, or lift one; return the exit code."""
    admin = of_environment(options.instance)
    if options.action == "lift":
        admin.lift(options.address)
        print(f"{options.address} is served again.")
    elif options.json:
        print(admin.fetch("bans").decode())
    else:
        bans = admin.read("bans", _Bans).bans
        print(of_instances(HEADERS, bans, _row) if bans else "Nobody is banned.")
    return 0


def _row(ban: BanLine) -> tuple[str, ...]:
    return ban.address, span(ban.seconds), ban.reason
