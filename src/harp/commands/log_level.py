"""`harp log-level`: how much the running HaRP logs, until it restarts."""

from __future__ import annotations

import argparse
from urllib.parse import urlencode

from harp.commands.admin import of_environment
from harp.commands.arguments import asks_harp
from harp.status.api import ACCESS, LEVELS


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    asks_harp(parser)
    parser.add_argument("--json", action="store_true", help="print what is in effect as JSON, as without it")
    parser.add_argument("level", choices=LEVELS, nargs="?", help="the least that is logged from now on")
    parser.add_argument("--access", choices=ACCESS, help="the requests that get a line from now on")


def main(options: argparse.Namespace) -> int:
    """Change it, and print what is in effect; return the exit code."""
    wishes = {"level": options.level, "access": options.access}
    print(of_environment().change_logs(urlencode({name: wish for name, wish in wishes.items() if wish})).decode())
    return 0
