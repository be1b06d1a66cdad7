"""The handshake of a tunnel client and the tunnel server, in memory: are their certificates usable?

OpenSSL alone checks chains, keys, names and dates, as it will for every client, so a valid directory is recognised
without loading `cryptography`: ten megabytes and a third of the time to start.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from harp.net.resolve import spelled

ROUNDS = 4  # turns of each side; three do
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Lifetime(Struct, frozen=True):
    """From when to when a certificate is good, in UTC."""

    begin: datetime
    end: datetime


def selfcheck(server: ssl.SSLContext, directory: Path, name: str) -> list[Lifetime]:
    """Connect a client with the files of `directory` to `server`, which it expects to be called `name`.

    Returns the lifetimes of every certificate in use: CAs, server, client. Raises OSError, of which ssl.SSLError is
    one, for a file that is missing or does not fit another.
    """
    client = client_context(directory)
    theirs, ours = handshake(client, server, name)
    shown = [*client.get_ca_certs(), theirs.getpeercert(), ours.getpeercert()]
    return [lifetime_of(certificate) for certificate in shown if certificate]


def client_context(directory: Path) -> ssl.SSLContext:
    """Return TLS as a tunnel client with the files of `directory` has it. Raises OSError."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.hostname_checks_common_name = False  # Go does not look there either
    client.load_verify_locations(directory / "ca.crt")
    load_pair(client, directory, "client")
    return client


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str | None) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Connect both in memory; return their ends of the connection. Raises OSError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name and spelled(name))
    _shake_hands(theirs, ours)
    return theirs, ours


def load_pair(context: ssl.SSLContext, directory: Path, stem: str) -> None:
    """Use `stem`.crt and `stem`.key, which must belong together. Raises OSError, also for a key with a pass phrase."""
    context.load_cert_chain(directory / f"{stem}.crt", directory / f"{stem}.key", password="")


def _shake_hands(client: ssl.SSLObject, server: ssl.SSLObject) -> None:
    for _ in range(ROUNDS):
        waiting = False
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waiting = True
        if not waiting:
            return
    raise ssl.SSLError("the handshake does not complete")


def lifetime_of(certificate: Mapping[str, object]) -> Lifetime:
    """Return from when to when a certificate is good, as `getpeercert` shows it."""
    return Lifetime(_date_of(str(certificate["notBefore"])), _date_of(str(certificate["notAfter"])))


def _date_of(text: str) -> datetime:
    """Read a date as OpenSSL writes it: Jan  5 09:34:43 2026 GMT. The ssl module would load strptime for that."""
    month, day, time, year, _ = text.split()
    return datetime.fromisoformat(f"{year}-{MONTHS.index(month) + 1:02}-{day:>02}T{time}+00:00")
