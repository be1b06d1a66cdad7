"""Byte streams of the encrypted FRP control connection: AES-CFB for version 1, AES-GCM for version 2 (F 4, F 6.4).

Random values (IVs, nonces) are given by the caller. A module of its own: a process without tunnels need not load ctypes
or the eight megabytes of `cryptography` where Python's OpenSSL cannot be called.
"""

from __future__ import annotations

from harp.errors import PeerError

try:
    from harp.wire.aes_openssl import Cfb, Gcm
except ImportError:
    from harp.wire.aes_cryptography import LibraryCfb as Cfb  # type: ignore[assignment]
    from harp.wire.aes_cryptography import LibraryGcm as Gcm  # type: ignore[assignment]

IV_SIZE = 16
NONCE_SIZE = 12
TAG_SIZE = 16
RECORD_LIMIT = 65536  # bytes of plaintext in one record
LENGTH_SIZE = 4
NONCE_RANGE = 1 << (8 * NONCE_SIZE)


class CfbEncryptor:
    """AES-128-CFB, one continuous stream; `iv` is 16 random bytes."""

    def __init__(self, key: bytes, iv: bytes) -> None:
        self._cipher = Cfb(key, iv, encrypts=True)
        self._iv = iv

    def encrypt(self, data: bytes) -> bytes:
        """As Encryptor."""
        iv, self._iv = self._iv, b""
        return iv + self._cipher.update(data)


class CfbDecryptor:
    """The other end of CfbEncryptor; the first 16 bytes are the IV. There is no integrity to check."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._iv = b""
        self._cipher = Cfb(key, bytes(IV_SIZE), encrypts=False)  # replaced when the IV is here

    def decrypt(self, data: bytes) -> bytes:
        """As Decryptor."""
        missing = IV_SIZE - len(self._iv)
        if missing:
            self._iv += data[:missing]
            data = data[missing:]
            if len(self._iv) < IV_SIZE:
                return b""
            self._cipher = Cfb(self._key, self._iv, encrypts=False)
        return self._cipher.update(data)


def _nonce(start: bytes, record: int) -> bytes:
    return ((int.from_bytes(start) + record) % NONCE_RANGE).to_bytes(NONCE_SIZE)


class GcmEncryptor:
    """AES-256-GCM records; `nonce` is 12 random bytes, the first record's."""

    def __init__(self, key: bytes, nonce: bytes) -> None:
        self._cipher = Gcm(key)
        self._nonce = nonce
        self._record = 0

    def encrypt(self, data: bytes) -> bytes:
        """As Encryptor; one record, or several when `data` is longer than one can hold."""
        wire = b"" if self._record else self._nonce
        for at in range(0, len(data), RECORD_LIMIT):
            part = data[at : at + RECORD_LIMIT]
            length = (len(part) + TAG_SIZE).to_bytes(LENGTH_SIZE)
            wire += length + self._cipher.seal(_nonce(self._nonce, self._record), part, self._nonce + length)
            self._record += 1
        return wire


class GcmDecryptor:
    """The other end of GcmEncryptor. Holds back at most one record."""

    def __init__(self, key: bytes) -> None:
        self._cipher = Gcm(key)
        self._nonce = b""
        self._record = 0
        self._buffer = b""

    def decrypt(self, data: bytes) -> bytes:
        """As Decryptor. Raises PeerError on a bad tag, or a bad length before the record is awaited."""
        self._buffer += data
        if not self._nonce:
            if len(self._buffer) < NONCE_SIZE:
                return b""
            self._nonce, self._buffer = self._buffer[:NONCE_SIZE], self._buffer[NONCE_SIZE:]
        plain = b""
        while len(self._buffer) >= LENGTH_SIZE:
            length = self._buffer[:LENGTH_SIZE]
            end = LENGTH_SIZE + int.from_bytes(length)
            if not TAG_SIZE <= end - LENGTH_SIZE <= RECORD_LIMIT + TAG_SIZE:
                raise PeerError(f"frp: encrypted record of {end - LENGTH_SIZE} bytes")
            if len(self._buffer) < end:
                break
            plain += self._open(self._buffer[LENGTH_SIZE:end], self._nonce + length)
            self._buffer = self._buffer[end:]
        return plain

    def _open(self, record: bytes, header: bytes) -> bytes:
        nonce = _nonce(self._nonce, self._record)
        self._record += 1
        plain = self._cipher.open(nonce, record, header)
        if plain is None:
            raise PeerError("frp: an encrypted record is damaged")
        return plain
