"""AES by the OpenSSL that Python's `hashlib` has loaded, called by ctypes; the twin of `aes_cryptography`.

`cryptography` brings an OpenSSL of its own: seven megabytes in every process with a tunnel, for a few small messages.
Importing this raises ImportError where Python shows no OpenSSL: when it is built in, or another library.
"""

from __future__ import annotations

import _hashlib
from ctypes import CDLL, byref, c_char_p, c_int, c_void_p, create_string_buffer

IV_SIZE = 16
NONCE_SIZE = 12
TAG_SIZE = 16
KEY_SIZES = {"EVP_aes_128_cfb128": 16, "EVP_aes_256_gcm": 32}  # OpenSSL reads as much, whatever it is given
GET_TAG, SET_TAG = 0x10, 0x11  # EVP_CTRL_AEAD_GET_TAG, EVP_CTRL_AEAD_SET_TAG
FUNCTIONS = {  # name -> what it takes; those of a context return 1 when they succeed
    "EVP_CIPHER_CTX_free": (c_void_p,),
    "EVP_CipherInit_ex": (c_void_p, c_void_p, c_void_p, c_char_p, c_char_p, c_int),
    "EVP_CipherUpdate": (c_void_p, c_void_p, c_void_p, c_char_p, c_int),
    "EVP_CipherFinal_ex": (c_void_p, c_void_p, c_void_p),
    "EVP_CIPHER_CTX_ctrl": (c_void_p, c_int, c_int, c_void_p),
}


def _library() -> CDLL:
    try:
        library = CDLL(_hashlib.__file__)  # finds what this depends on as well, so that nobody needs a path of OpenSSL
        for name, takes in FUNCTIONS.items():
            getattr(library, name).argtypes = takes
        for name in ("EVP_CIPHER_CTX_new", *KEY_SIZES):
            getattr(library, name).restype = c_void_p
    except (AttributeError, OSError) as error:
        raise ImportError(f"no OpenSSL to call: {error}") from error
    return library


_OPENSSL = _library()


class _Context:
    """A cipher with a key, in one direction."""

    def __init__(self, cipher: str, key: bytes, *, encrypts: bool) -> None:
        if len(key) != KEY_SIZES[cipher]:
            raise ValueError(f"AES: a key of {len(key)} bytes")
        self._context = _OPENSSL.EVP_CIPHER_CTX_new()
        if not self._context:
            raise MemoryError("OpenSSL has no cipher")
        self._encrypts = encrypts
        _check(self._set(getattr(_OPENSSL, cipher)(), key, None))

    def __del__(self) -> None:
        if context := getattr(self, "_context", None):
            _OPENSSL.EVP_CIPHER_CTX_free(context)

    def _set(self, cipher: int | None, key: bytes | None, iv: bytes | None) -> int:
        done: int = _OPENSSL.EVP_CipherInit_ex(self._context, cipher, None, key, iv, int(self._encrypts))
        return done

    def begin(self, iv: bytes, size: int) -> None:
        """Begin with `iv`, whose length must be `size`."""
        if len(iv) != size:
            raise ValueError(f"AES: an IV of {len(iv)} bytes")
        _check(self._set(None, None, iv))

    def update(self, data: bytes) -> bytes:
        """Return what `data` becomes, of the same length."""
        out, length = create_string_buffer(len(data) or 1), c_int()
        _check(_OPENSSL.EVP_CipherUpdate(self._context, out, byref(length), data, len(data)))
        return out.raw[: length.value]

    def add(self, header: bytes) -> None:
        """Count `header` in, which is not encrypted."""
        _check(_OPENSSL.EVP_CipherUpdate(self._context, None, byref(c_int()), header, len(header)))

    def end(self) -> bool:
        """Return whether everything is as it was encrypted."""
        done: int = _OPENSSL.EVP_CipherFinal_ex(self._context, create_string_buffer(IV_SIZE), byref(c_int()))
        return done == 1

    def control(self, what: int, tag: object) -> None:
        """Get or set the tag."""
        _check(_OPENSSL.EVP_CIPHER_CTX_ctrl(self._context, what, TAG_SIZE, tag))


class Cfb:
    """As `aes_cryptography.LibraryCfb`."""

    def __init__(self, key: bytes, iv: bytes, *, encrypts: bool) -> None:
        self._context = _Context("EVP_aes_128_cfb128", key, encrypts=encrypts)
        self._context.begin(iv, IV_SIZE)

    def update(self, data: bytes) -> bytes:
        """As `aes_cryptography.LibraryCfb.update`."""
        return self._context.update(data)


class Gcm:
    """As `aes_cryptography.LibraryGcm`."""

    def __init__(self, key: bytes) -> None:
        self._sealing = _Context("EVP_aes_256_gcm", key, encrypts=True)
        self._opening = _Context("EVP_aes_256_gcm", key, encrypts=False)

    def seal(self, nonce: bytes, plain: bytes, header: bytes) -> bytes:
        """As `aes_cryptography.LibraryGcm.seal`."""
        context = self._sealing
        context.begin(nonce, NONCE_SIZE)
        context.add(header)
        sealed = context.update(plain)
        _check(context.end())
        tag = create_string_buffer(TAG_SIZE)
        context.control(GET_TAG, tag)
        return sealed + tag.raw

    def open(self, nonce: bytes, sealed: bytes, header: bytes) -> bytes | None:
        """As `aes_cryptography.LibraryGcm.open`."""
        if len(sealed) < TAG_SIZE:
            return None
        context = self._opening
        context.begin(nonce, NONCE_SIZE)
        context.add(header)
        plain = context.update(sealed[:-TAG_SIZE])
        context.control(SET_TAG, create_string_buffer(sealed[-TAG_SIZE:], TAG_SIZE))
        return plain if context.end() else None


def _check(done: int) -> None:
    if done != 1:
        raise RuntimeError("OpenSSL does not do AES here")
