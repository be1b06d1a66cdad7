"""`harp members`: the processes of this HaRP, if there are several (HP_WORKERS, HP_CLUSTER_URL)."""

from __future__ import annotations

import argparse

from msgspec import Struct

from harp.commands.admin import of_environment
from harp.commands.arguments import asks_harp
from harp.commands.tables import ago, table
from harp.status.snapshot import REPLICA, MemberLine

HEADERS = (
    *("member", "state", "process", "up for", "connections", "requests", "per second", "tunnels"),
    *("CPU", "memory", "loop late"),
)


class _Members(Struct):
    members: list[MemberLine]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    asks_harp(parser)
    parser.add_argument("--json", action="store_true", help="print what the admin API answers (/api/v1/members)")


def main(options: argparse.Namespace) -> int:
    """Print the members; return the exit code: 1 if one is not linked, or something else is wrong."""
    admin = of_environment()
    if options.json:
        print(admin.fetch("members").decode())
        return 0
    members = admin.read("members", _Members).members
    print(table(HEADERS, map(_row, members)) if members else "One process serves everything (HP_WORKERS=1).")
    troubled = [member for member in members if member.trouble]
    if troubled:
        print("\n" + "\n".join(f"{member.name}: {member.trouble}" for member in troubled))
    return 0 if all(member.linked for member in members) and not troubled else 1


def _row(member: MemberLine) -> tuple[str, ...]:
    leads = "this one" if member.kind == REPLICA else "leads"
    state = leads if member.leads else "linked" if member.linked else "away"
    if not member.process:
        return (member.name, state, *("" for _ in HEADERS[2:]))
    return (
        member.name,
        state,
        f"{member.process} at {member.address}" if member.address else str(member.process),
        ago(member.started),
        str(member.connections),
        str(member.requests),
        f"{member.rate:.1f}",
        str(member.tunnels),
        f"{member.cpu:.1f} s",
        f"{member.memory / 1e6:.0f} MB",
        f"{member.loop_lag * 1000:.0f} ms",
    )
