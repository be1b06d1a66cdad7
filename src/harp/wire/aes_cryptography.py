"""AES by the library `cryptography`: the twin of `aes_openssl`, for a Python whose own OpenSSL cannot be called."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES


class LibraryCfb:
    """AES-128-CFB in one direction, one continuous stream."""

    def __init__(self, key: bytes, iv: bytes, *, encrypts: bool) -> None:
        cipher = Cipher(AES(key), CFB(iv))
        self._cipher = cipher.encryptor() if encrypts else cipher.decryptor()

    def update(self, data: bytes) -> bytes:
        """Return what the next bytes become, as many."""
        return self._cipher.update(data)


class LibraryGcm:
    """AES-256-GCM; each record has a nonce of its own, and a tag behind it."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, nonce: bytes, plain: bytes, header: bytes) -> bytes:
        """Return the encrypted record with its tag, which is for `header` as well."""
        return self._cipher.encrypt(nonce, plain, header)

    def open(self, nonce: bytes, sealed: bytes, header: bytes) -> bytes | None:
        """Return what `seal` was given; None when the record, its tag or `header` is not as it was then."""
        try:
            return self._cipher.decrypt(nonce, sealed, header)
        except InvalidTag:
            return None
