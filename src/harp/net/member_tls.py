"""TLS between replicas: each shows `member.crt`, which is of the tunnel's CA as those of ExApps are, and has a mark.

Both sides ask for the CA and for the mark: whoever has the certificate of an ExApp is neither let in nor taken for a
replica. Files are read here: call it off the event loop.
"""

from __future__ import annotations

import ssl
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from harp.errors import SettingsError
from harp.net.certificates import words_of_file
from harp.net.tls_selfcheck import Lifetime, handshake, lifetime_of, load_pair
from harp.policy.ports import MEMBER_MARK

ALPN = "harp-member"
SHOWN = 8  # bytes of a fingerprint that distinguish one CA from another


class MemberTls(Struct, frozen=True):
    """TLS of both sides of a link."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    authority: bytes  # the beginning of the fingerprint of the CA: SHOWN bytes of its SHA-256


def member_tls(directory: Path) -> MemberTls:
    """Return TLS with the member certificate of `directory`. Raises SettingsError naming the file."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False  # replicas have addresses that come and go; the mark says what they are
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols([ALPN])
        what = "ca.crt"
        try:
            context.load_verify_locations(directory / what)
            what = "member.crt and member.key"
            load_pair(context, directory, "member")
        except OSError as error:  # ssl.SSLError is one
            raise SettingsError([f"{directory}: {what}: {words_of_file(error)}"]) from error
    (authority, *_) = client.get_ca_certs(binary_form=True)
    return MemberTls(server, client, sha256(authority).digest()[:SHOWN])


def is_member(connection: ssl.SSLObject) -> bool:
    """Return whether the other side of a TLS connection has shown the certificate of a replica, and speaks like one."""
    names = (connection.getpeercert() or {}).get("subjectAltName", ())
    return ("URI", MEMBER_MARK) in names and connection.selected_alpn_protocol() == ALPN


def shown(authority: bytes) -> str:
    """Return a fingerprint as people compare it: `openssl x509 -fingerprint -sha256` begins with the same."""
    return authority.hex(":").upper()


def lifetimes(directory: Path) -> list[Lifetime]:
    """Let two replicas with the files of `directory` meet, and return how long their certificate is good.

    Raises OSError or SettingsError when they do not recognise each other.
    """
    tls = member_tls(directory)
    dialling, dialled = handshake(tls.client, tls.server, None)
    certificate = dialling.getpeercert()
    if not certificate or not is_member(dialling) or not is_member(dialled):
        raise SettingsError([f"{directory / 'member.crt'} is not the certificate of a member"])
    return [lifetime_of(certificate)]
