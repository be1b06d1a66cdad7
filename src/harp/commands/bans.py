"""`harp bans`: who is turned away now, and why; `harp bans lift ADDRESS` ends a ban."""

from __future__ import annotations

import argparse

from msgspec import Struct

from harp.commands.admin import of_environment
from harp.commands.tables import span, table
from harp.status.snapshot import BanLine


class _Bans(Struct):
    bans: list[BanLine]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print what the admin API answers (/api/v1/bans)")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action")
    lift = actions.add_parser("lift", help="end a ban and forget the strikes of its address")
    lift.add_argument("address", metavar="ADDRESS", help="as `harp bans` and the log name it")


def main(options: argparse.Namespace) -> int:
    """Print the bans, or lift one; the exit code."""
    admin = of_environment()
    if options.action == "lift":
        admin.lift(options.address)
        print(f"{options.address} is served again.")
    elif options.json:
        print(admin.fetch("bans").decode())
    else:
        rows = [(ban.address, span(ban.seconds), ban.reason) for ban in admin.read("bans", _Bans).bans]
        print(table(("address", "ends in", "last strike"), rows) if rows else "Nobody is banned.")
    return 0
