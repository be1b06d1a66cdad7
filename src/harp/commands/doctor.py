"""`harp doctor`: what is wrong with this installation, why, and what to do about it.

The running HaRP examines itself, goes through the public URL, and asks all its peers. Nothing secret is
in the report: it is safe to paste.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping
from urllib.parse import urlencode

import msgspec

from harp import __version__
from harp.commands.admin import Admin
from harp.commands.arguments import add_instance, asks_harp, chosen
from harp.commands.check import problems_of
from harp.errors import Unreachable, words_of
from harp.settings import Address, Reading, examine
from harp.status.doctor import fixes
from harp.status.doctor.report import DoctorReport, Finding, failed, worst
from harp.wire.decoding import decoded

SIGNS = {"ok": "ok", "warning": "warning", "failed": "FAILED", "skipped": "-"}
COLOURS = {"ok": "32", "warning": "33", "failed": "31;1", "skipped": "2"}
WIDTH = max(map(len, SIGNS.values()))
COLUMNS = 110


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    asks_harp(parser)
    parser.add_argument("--json", action="store_true", help="print the report as JSON (as /api/v1/doctor)")
    text = "walk through this URL of Nextcloud (default: HP_PUBLIC_URL, else NC_INSTANCE_URL)"
    parser.add_argument("--url", default="", metavar="URL", help=text)
    text = "an ExApp that is installed: asking Nextcloud for it proves the shared key"
    parser.add_argument("--app", default="", metavar="ID", help=text)
    add_instance(parser, "examine what concerns one Nextcloud")


def main(options: argparse.Namespace) -> int:
    """Print the report; return the exit code: 1 when anything has failed."""
    reading = examine(os.environ)
    settings = reading.settings
    if options.url or options.app or options.instance:
        chosen(options.instance, needed=True)  # it must be clear which one is meant, and be there
    try:
        given = (("url", options.url), ("app", options.app), ("instance", options.instance))
        wishes = {name: value for name, value in given if value}
        report = report_of_the_running(Admin(settings), wishes)
    except Unreachable as error:
        report = report_of_a_stopped(reading, error)
    if options.json:
        print(msgspec.json.encode(report).decode())
    else:
        print("\n".join(lines_of(report, colour=sys.stdout.isatty() and not os.environ.get("NO_COLOR"))))
    return 1 if report.state == "failed" else 0


def report_of_the_running(admin: Admin, wishes: Mapping[str, str]) -> DoctorReport:
    """Return a report made by the running HaRP. Raises Unreachable."""
    encoded = admin.examine(urlencode(wishes))
    return decoded(encoded, DoctorReport, lambda error: Unreachable(f"the admin listener answers {error}"))


def report_of_a_stopped(reading: Reading, error: Unreachable) -> DoctorReport:
    """Return what can be seen while HaRP does not run, or does not answer."""
    settings = reading.settings
    problems = [*reading.problems, *problems_of(settings)]
    findings = [failed("harp", "HaRP runs", str(error), "start it: `harp run`; its log says why it has ended")]
    findings += [failed("settings", "the settings can be used", text, fixes.SETTING) for text in problems]
    listen = settings.listen
    for variable, addresses in (
        ("HP_EXAPPS_ADDRESS", listen.http),
        ("HP_FRP_ADDRESS", listen.frp),
        ("HP_ADMIN_ADDRESS", listen.admin),
    ):
        findings += [found for address in addresses if (found := taken(variable, address)) is not None]
    return DoctorReport(time.time(), 0.0, __version__, settings.public_url, worst(findings), tuple(findings))


def taken(variable: str, address: Address) -> Finding | None:
    """Return what is wrong with an address that HaRP would listen on."""
    if address.path or not address.port:
        return None
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address.host, address.port))
    except OSError as error:
        fix = f"end the program that has it (ss -ltnp), or set {variable} to another port"
        return failed(f"port:{variable}", f"{variable} can be listened on", f"{address}: {words_of(error)}", fix)
    return None


def lines_of(report: DoctorReport, *, colour: bool) -> Iterable[str]:
    """Return the report for people: failures stand out, and each fix is below its cause."""
    yield f"HaRP {report.version}{f', through {report.public_url}' if report.public_url else ''}"
    yield from lines_of_findings(report.findings, colour=colour)
    counts = [
        f"{count} {word}"
        for state, word in (("failed", "failed"), ("warning", "with a warning"), ("skipped", "not examined"))
        if (count := sum(finding.state == state for finding in report.findings))
    ]
    things = f"{len(report.findings)} thing{'' if len(report.findings) == 1 else 's'}"
    yield f"{things} examined in {report.seconds:.1f} s: {', '.join(counts) or 'all in order'}."


def lines_of_findings(findings: Iterable[Finding], *, colour: bool) -> Iterable[str]:
    """Return findings as lines for people."""
    for finding in findings:
        sign = SIGNS[finding.state].ljust(WIDTH)
        if colour:
            sign = f"\x1b[{COLOURS[finding.state]}m{sign}\x1b[0m"
        yield f"{sign}  {finding.title}"
        if finding.cause:
            yield from _block(finding.cause, "")
        if finding.fix and finding.state != "ok":
            yield from _block(finding.fix, "fix: ")


def _block(text: str, label: str) -> list[str]:
    margin = " " * (WIDTH + 4)
    first, rest = margin + label, margin + " " * len(label)
    return textwrap.wrap(
        text, COLUMNS, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
