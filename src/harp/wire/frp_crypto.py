"""The encrypted FRP control connection: its keys, and what its ciphers offer (F 3, F 4, F 6.4).

With FRP's usual empty token every key here is known to everybody: TLS is what protects a tunnel, this is compatibility.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Protocol

from harp.wire.frp import AES_GCM


class Encryptor(Protocol):
    """One direction of a control connection, sending."""

    def encrypt(self, data: bytes) -> bytes:
        """Return what goes on the wire for `data`; the first call puts the IV or nonce in front."""


class Decryptor(Protocol):
    """One direction of a control connection, receiving."""

    def decrypt(self, data: bytes) -> bytes:
        """Return the plaintext that `data` completes, any slicing. Raises PeerError when it was tampered with."""


def privilege_key(token: str, timestamp: int) -> str:
    """Proof that a client knows `token` (F 3): MD5 of the token and the decimal timestamp in Unix seconds."""
    return hashlib.md5(f"{token}{timestamp}".encode(), usedforsecurity=False).hexdigest()


def control_key(token: str) -> bytes:
    """Return the AES-128 key of a version 1 control connection, both directions."""
    return hashlib.pbkdf2_hmac("sha1", token.encode(), b"frp", 64, 16)


def transcript(client_hello: bytes, server_hello: bytes) -> bytes:
    """SHA-256 over the exact payloads of the two hello frames."""
    digest = hashlib.sha256(b"frp wire v2 crypto transcript")
    for label, part in ((b"client hello", client_hello), (b"server hello", server_hello)):
        digest.update(b"\0" + label + b"\0" + len(part).to_bytes(8) + part)
    return digest.digest()


def control_keys(token: str, transcript: bytes) -> tuple[bytes, bytes]:
    """Return the AES-256 keys of a version 2 control connection: client to server, server to client.

    HKDF-SHA256 of one block: the key is as long as the hash.
    """
    secret = hmac.digest(transcript, token.encode(), "sha256")

    def key(direction: str) -> bytes:
        return hmac.digest(secret, f"frp wire v2 control aead {AES_GCM} {direction}\x01".encode(), "sha256")

    return key("client-to-server"), key("server-to-client")
