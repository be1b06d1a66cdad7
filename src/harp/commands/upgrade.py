"""`harp upgrade`: the version that is installed now takes the place of the one that runs, without a lost request."""

from __future__ import annotations

import argparse
import json

from harp.commands.admin import of_environment
from harp.commands.arguments import asks_harp


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    asks_harp(parser)
    parser.add_argument("--json", action="store_true", help="print what the admin API answers (/api/v1/upgrade)")


def main(options: argparse.Namespace) -> int:
    """Have it done, say which process serves now, and return the exit code. Raises HarpError if none does."""
    process = of_environment().upgrade()
    if options.json:
        print(json.dumps({"process": process}))
        return 0
    print(f"Process {process} serves now; the one before finishes its requests and ends.")
    return 0
