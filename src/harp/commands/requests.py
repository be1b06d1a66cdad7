"""`harp requests`: the last requests and failures; with --follow each request as it ends, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable
from urllib.parse import urlencode

import msgspec

from harp.commands.admin import of_environment
from harp.commands.arguments import asks_harp
from harp.logs import printable
from harp.status.snapshot import RequestLine, RequestLines

COLOURS = {0: "31", 1: "36", 2: "32", 3: "36", 4: "33", 5: "31;1"}  # by the class of a status
PATH = 48  # columns


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    asks_harp(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="show requests as they end, until Ctrl-C")
    parser.add_argument("--app", default="", metavar="ID", help="of this ExApp only")
    text = "print what the admin API answers (/api/v1/requests); with --follow one object a line"
    parser.add_argument("--json", action="store_true", help=text)


def main(options: argparse.Namespace) -> int:
    """Print requests; return the exit code."""
    admin = of_environment()
    query = f"?{urlencode({'app': options.app})}" if options.app else ""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    if options.follow:
        for data in admin.follow(f"requests/follow{query}"):
            print(data.decode() if options.json else followed(data, colour=colour), flush=True)
    elif options.json:
        print(admin.fetch(f"requests{query}").decode())
    else:
        lines = admin.read(f"requests{query}", RequestLines)
        print("\n".join(report(lines, colour=colour)))
    return 0


def followed(data: bytes, *, colour: bool) -> str:
    """Return the line for one event: a request, or how many were lost, or why there is none."""
    try:
        return line_of(msgspec.json.decode(data, type=RequestLine), colour=colour)
    except msgspec.ValidationError:
        text = data.decode()
        return f"({text} requests were too many to show)" if text.isdecimal() else f"({text})"
    except msgspec.DecodeError:
        return f"({data.decode()})"


def report(lines: RequestLines, *, colour: bool) -> Iterable[str]:
    """Return the last requests and failures as lines of text, the newest last."""
    if lines.recent:
        yield "Last requests:"
        yield from (f"  {line_of(line, colour=colour)}" for line in reversed(lines.recent))
    else:
        yield "No request since somebody began to look; HaRP looks for a minute from now on. Or use --follow."
    yield "Last failures:" if lines.failures else "No failure since the start."
    yield from (f"  {line_of(line, colour=colour)}" for line in reversed(lines.failures))


def line_of(line: RequestLine, *, colour: bool) -> str:
    """Return one request on one line."""
    at = time.strftime("%H:%M:%S", time.localtime(line.ended))
    status = f"{line.status or '---'}"
    if colour:
        status = f"\033[{COLOURS.get(line.status // 100, '0')}m{status}\033[0m"
    target = printable(f"{line.method} {line.path}{line.query}")
    who = f" {line.user}" if line.user else ""
    waits = "".join(f" {what} {seconds * 1000:.0f} ms" for what, seconds in line.waits.items())
    why = f"  {printable(line.reason)}" if line.refused or line.status >= 500 or not line.status else ""
    took = f"{line.seconds * 1000:.1f} ms" if line.seconds < 1 else f"{line.seconds:.1f} s"
    return f"{at} {status} {target:<{PATH}} {took:>9} {line.sent:>8} B  {line.address}{printable(who)}{waits}{why}"
