"""`harp version`."""

from __future__ import annotations

import argparse

from harp import __version__


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def main(options: argparse.Namespace) -> int:
    """Print the version; return the exit code."""
    print(f'{{"version": "{__version__}"}}' if options.json else f"harp {__version__}")
    return 0
