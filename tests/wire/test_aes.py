"""Both libraries of AES do the same: OpenSSL as Python has it, and `cryptography`."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harp.wire import aes_cryptography, aes_openssl

HEADERS = st.binary(min_size=1, max_size=40)


LOADED = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))
from harp.wire.frp_ciphers import CfbDecryptor, CfbEncryptor, GcmDecryptor, GcmEncryptor
assert CfbDecryptor(bytes(16)).decrypt(CfbEncryptor(bytes(16), bytes(16)).encrypt(b"text")) == b"text"
assert GcmDecryptor(bytes(32)).decrypt(GcmEncryptor(bytes(32), bytes(12)).encrypt(b"text")) == b"text"
print("cryptography" in sys.modules)
"""


@pytest.mark.parametrize(("missing", "loaded"), [([], "False"), (["harp.wire.aes_openssl"], "True")])
def test_tunnels_need_no_cryptography_unless_openssl_cannot_be_called(missing: list[str], loaded: str) -> None:
    output = subprocess.run([sys.executable, "-c", LOADED, *missing], check=True, capture_output=True, text=True)
    assert output.stdout.strip() == loaded


@given(key=st.binary(min_size=16, max_size=16), iv=st.binary(min_size=16, max_size=16), parts=st.lists(st.binary()))
def test_a_stream_is_the_same(key: bytes, iv: bytes, parts: list[bytes]) -> None:
    ours, theirs = aes_openssl.Cfb(key, iv, encrypts=True), aes_cryptography.LibraryCfb(key, iv, encrypts=True)
    back, their_back = aes_openssl.Cfb(key, iv, encrypts=False), aes_cryptography.LibraryCfb(key, iv, encrypts=False)
    for part in parts:
        wire = ours.update(part)
        assert theirs.update(part) == wire
        assert back.update(wire) == their_back.update(wire) == part


@given(
    key=st.binary(min_size=32, max_size=32),
    records=st.lists(st.tuples(st.binary(min_size=12, max_size=12), st.binary(), HEADERS)),
)
def test_a_record_is_the_same(key: bytes, records: list[tuple[bytes, bytes, bytes]]) -> None:
    ours, theirs = aes_openssl.Gcm(key), aes_cryptography.LibraryGcm(key)
    for nonce, plain, header in records:
        sealed = ours.seal(nonce, plain, header)
        assert theirs.seal(nonce, plain, header) == sealed
        assert ours.open(nonce, sealed, header) == theirs.open(nonce, sealed, header) == plain


@pytest.mark.parametrize("gcm", [aes_openssl.Gcm(bytes(32)), aes_cryptography.LibraryGcm(bytes(32))])
def test_a_damaged_record_is_not_opened_and_the_next_one_is(gcm: aes_openssl.Gcm | aes_cryptography.LibraryGcm) -> None:
    sealed = gcm.seal(bytes(12), b"text", b"header")
    for damaged in (bytes([sealed[0] ^ 1]) + sealed[1:], sealed[:-1] + bytes([sealed[-1] ^ 1]), sealed[:-1], b"short"):
        assert gcm.open(bytes(12), damaged, b"header") is None
    assert gcm.open(bytes(12), sealed, b"another") is None
    assert gcm.open(bytes(12), sealed, b"header") == b"text"


@pytest.mark.parametrize("size", [0, 15, 17, 33])
def test_a_key_or_an_iv_of_another_length_is_refused_before_openssl_reads_beyond_it(size: int) -> None:
    with pytest.raises(ValueError, match="key"):
        aes_openssl.Cfb(bytes(size), bytes(16), encrypts=True)
    with pytest.raises(ValueError, match="key"):
        aes_openssl.Gcm(bytes(size))
    with pytest.raises(ValueError, match="IV"):
        aes_openssl.Cfb(bytes(16), bytes(size), encrypts=True)
    with pytest.raises(ValueError, match="IV"):
        aes_openssl.Gcm(bytes(32)).seal(bytes(size), b"text", b"header")
