"""`harp version`."""

from __future__ import annotations

import argparse

from harp import __version__


def arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def main(options: argparse.Namespace) -> int:
    """Print the version; the exit code."""
    print(f"harp {__version__}")
    return 0
