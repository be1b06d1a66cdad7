"""`harp health`: is the HaRP with these settings healthy? It runs every ten seconds, so it loads almost nothing.

The event loop must answer on the admin listener, and every listener must accept a connection (A 7.4). Nextcloud and
engines are not checked: restarting HaRP would not repair them.
"""

from __future__ import annotations

import argparse
import os
import socket

from harp.commands.arguments import reads
from harp.errors import SettingsError, words_of
from harp.settings import Address, Settings, load

PATIENCE = 5.0  # seconds for each step


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    reads(parser, "HP_ADMIN_ADDRESS", "HP_EXAPPS_ADDRESS", "HP_EXAPPS_HTTPS_ADDRESS", "HP_FRP_ADDRESS")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def main(options: argparse.Namespace) -> int:
    """Print the answer in one line; return the exit code."""
    try:
        problem = problem_of(load(os.environ))
    except SettingsError as error:
        problem = "; ".join(error.problems)
    if options.json:
        import json  # noqa: PLC0415 - nobody waits for it every ten seconds

        print(json.dumps({"healthy": not problem, "problem": problem or ""}))
    else:
        print(f"unhealthy: {problem}" if problem else "healthy")
    return 1 if problem else 0


def problem_of(settings: Settings) -> str | None:
    """Return the first thing that is wrong, in one line; None when healthy."""
    listen = settings.listen
    https = listen.https if (settings.certs / "cert.pem").exists() else ()
    for name, address in (
        *(("HTTP", address) for address in listen.http),
        *(("HTTPS", address) for address in https),
        *(("FRP", address) for address in listen.frp),
    ):
        try:
            connect(address).close()
        except OSError as error:
            return f"the {name} listener {address} does not accept connections ({_reason(error)})"
    for address in listen.admin:
        try:
            status = _heartbeat(address)
        except OSError as error:
            return f"the admin listener {address} does not answer ({_reason(error)})"
        if status != 200:
            return f"the admin listener {address} answers {status}; is it another program?"
    return None


def connect(address: Address) -> socket.socket:
    """Return a connection to a listener of ours. Raises OSError."""
    if address.path:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(PATIENCE)
            connection.connect(address.path)
        except BaseException:
            connection.close()
            raise
        return connection
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - compared, not bound
    return socket.create_connection((host, address.port), PATIENCE)


def _heartbeat(address: Address) -> int:
    """Return the status of GET /heartbeat, without the standard library's client, which takes longer to load."""
    with connect(address) as connection:
        connection.sendall(b"GET /heartbeat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        line = connection.makefile("rb").readline(256)
    version, _, rest = line.partition(b" ")
    status = rest[:3]
    if not version.startswith(b"HTTP/1.") or not status.isdigit():
        raise ConnectionError("it does not speak HTTP")
    return int(status)


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {PATIENCE:g} s"
    return words_of(error)
