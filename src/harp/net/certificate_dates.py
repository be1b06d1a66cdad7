"""When certificates end, read by OpenSSL alone: a handshake in memory in which dates are not checked.

Loading `cryptography` for a date would cost ten megabytes. Files are read here: call it off the event loop.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from msgspec import Struct

from harp.errors import HarpError
from harp.lazy import load_now
from harp.net.certificates import MEMBERS, server_context
from harp.net.tls_selfcheck import client_context, handshake, lifetime_of
from harp.policy.ports import SERVER_NAME

NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, for which the ssl module has no name
SOON = timedelta(days=21)
BROWSER_FIX = "renew it, then send HaRP the signal HUP"
TUNNEL_FIX = "remove the file and restart HaRP, which makes a new one; then renew its copies on remote engines"

log = structlog.get_logger()


class CertificateEnd(Struct, frozen=True):
    """A certificate in use."""

    file: str
    end: float  # Unix seconds
    fix: str  # what to do when that is near

    def left(self, now: datetime) -> timedelta:
        """Return how long it is still valid."""
        return datetime.fromtimestamp(self.end, now.tzinfo) - now


def certificate_ends(certs: Path, *, tunnel: bool) -> list[CertificateEnd]:
    """Return when the certificates below `certs` end: cert.pem if there is one, and with `tunnel` those of the tunnel.

    Unreadable certificates are left out: their users report why.
    """
    found: list[CertificateEnd] = []
    browser = certs / "cert.pem"
    if browser.exists():
        found += _browser_ends(browser)
    if tunnel:
        found += _tunnel_ends(certs / "frp")
    return found


def warn_of(certificates: Iterable[CertificateEnd], now: datetime) -> None:
    """Log a warning for each that ends within SOON, or has ended."""
    for certificate in certificates:
        left = certificate.left(now)
        if left <= SOON:
            event = "certificate ends soon" if left > timedelta(0) else "certificate has ended"
            log.warning(event, file=certificate.file, days=left.days, fix=certificate.fix)


def _browser_ends(path: Path) -> list[CertificateEnd]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags = ssl.VerifyFlags(NO_CHECK_TIME | ssl.VERIFY_X509_PARTIAL_CHAIN)
    try:
        server.load_cert_chain(path)
        client.load_verify_locations(path)
        theirs, _ = handshake(client, server, None)
        shown = theirs.getpeercert()
    except OSError:
        return []
    return [CertificateEnd(str(path), lifetime_of(shown).end.timestamp(), BROWSER_FIX)] if shown else []


def _of_member(directory: Path) -> list[tuple[str, Mapping[str, object] | None]]:
    """Return the certificate of replicas, if there is one."""
    if not (directory / "member.crt").exists():
        return []
    try:
        tls = load_now(MEMBERS).member_tls(directory)
        for context in (tls.server, tls.client):
            context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
        theirs, _ = handshake(tls.client, tls.server, None)
    except (OSError, HarpError):
        return []
    return [("member.crt", theirs.getpeercert())]


def _tunnel_ends(directory: Path) -> list[CertificateEnd]:
    try:
        server, client = server_context(directory), client_context(directory)
        for context in (server, client):
            context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
        theirs, ours = handshake(client, server, SERVER_NAME)
    except (OSError, HarpError):
        return []
    shown = [("server.crt", theirs.getpeercert()), ("client.crt", ours.getpeercert()), *_of_member(directory)]
    shown = [*(("ca.crt", authority) for authority in client.get_ca_certs()), *shown]
    return [
        CertificateEnd(str(directory / name), lifetime_of(certificate).end.timestamp(), TUNNEL_FIX)
        for name, certificate in shown
        if certificate
    ]
