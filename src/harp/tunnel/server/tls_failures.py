"""Why a tunnel client's TLS handshake failed, and what to do about it."""

from __future__ import annotations

import ssl

from msgspec import Struct

COPIES = "copy client.crt, client.key and ca.crt from HP_CERTS_DIR/frp to the client again"
EXPIRED, NOT_YET_VALID, WRONG_PURPOSE = 10, 9, 26  # OpenSSL's verify codes, X509_V_ERR_...
# What the client says of our certificate: OpenSSL's names of TLS alerts (RFC 8446, 6.2).
ALERTS = {
    "UNKNOWN_CA": "the client does not know the CA of this server's certificate",
    "BAD_CERTIFICATE": "the client does not accept this server's certificate",
    "CERTIFICATE_EXPIRED": "the client finds this server's certificate expired",
    "CERTIFICATE_UNKNOWN": "the client does not accept this server's certificate",
    "UNSUPPORTED_CERTIFICATE": "the client does not accept this server's certificate",
}
SERVER_FIX = f'{COPIES}, and set transport.tls.serverName = "harp.nc"; compare the clocks of both hosts'


class Failure(Struct, frozen=True):
    """What is wrong, and what to change."""

    reason: str
    fix: str


def failure_of(error: OSError) -> Failure | None:
    """Return what is wrong with the certificates; None for any other failure, which a scanner could have caused."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(error)
    reason = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None
    if not reason:
        return None
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return Failure("the client has no certificate", f"{COPIES}, and set transport.tls.certFile and keyFile")
    _, alert, name = reason.partition("_ALERT_")
    if alert and name in ALERTS:
        return Failure(ALERTS[name], SERVER_FIX)
    return None


def _untrusted(error: ssl.SSLCertVerificationError) -> Failure:
    code, words = error.verify_code, error.verify_message
    if code == EXPIRED:
        return Failure("the client's certificate has expired", COPIES)
    if code == NOT_YET_VALID:
        return Failure("the client's certificate is not valid yet", "compare the clocks of both hosts")
    if code == WRONG_PURPOSE:
        return Failure("the client's certificate is not made for clients", COPIES)
    return Failure(f"the client's certificate is not of this server's CA ({words})", COPIES)
