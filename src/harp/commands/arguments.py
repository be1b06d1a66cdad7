"""What several commands take as arguments."""

from __future__ import annotations

import argparse


def port(text: str) -> int:
    """Read a port number, 0 included."""
    if not (text.isascii() and text.isdigit() and int(text[:6]) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)
