"""The hash of a certificate's subject, by which OpenSSL finds a CA in a directory.

ASN.1 is parsed here only as far as the subject, and not by a library, for measured reasons (the 150 CAs of
Debian, whose hashes all come out the same): pyOpenSSL, which has this very hash, takes 113 ms and 16 MB that stay, and
`cryptography` 118 ms and 12 MB, instead of 27 ms and 0.4 MB; `cryptography` has no such hash, so that the canonical
form of names would be ours all the same, and it announces that it will refuse CAs that Debian trusts (serial number 0).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha1


class Malformed(ValueError):
    """Not the DER of a certificate."""


_SEQUENCE, _SET, _UTF8, _EXPLICIT_0 = 0x30, 0x31, 0x0C, 0xA0
# Strings that OpenSSL brings into one form before it compares names, with their encodings (x509_name_canon).
_STRINGS = {
    0x0C: "utf-8",
    0x13: "latin-1",  # PrintableString
    0x14: "latin-1",  # T61String, which OpenSSL takes for Latin-1
    0x16: "latin-1",  # IA5String
    0x1A: "latin-1",  # VisibleString
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}
_BLANKS = re.compile(r"[ \t\n\v\f\r]+")
_CAPITALS = {capital: capital + 32 for capital in range(ord("A"), ord("Z") + 1)}


def subject_hash(der: bytes) -> str:
    """Return the name under which OpenSSL looks for this CA.

    8 hexadecimal digits, as `openssl x509 -hash` prints them.
    """
    canonical = b"".join(_tlv(_SET, b"".join(sorted(map(_canonical, _all(rdn))))) for rdn in _all(subject(der)))
    return sha1(canonical, usedforsecurity=False).digest()[3::-1].hex()


def _canonical(attribute: bytes) -> bytes:
    """Return one attribute in the form that OpenSSL compares: text in UTF-8, lower case, single spaces."""
    parts = list(_all_tagged(attribute))
    if len(parts) != 2:
        raise Malformed("a name with an odd attribute")
    (kind, oid), (tag, value) = parts
    if tag in _STRINGS:
        try:
            text = _BLANKS.sub(" ", value.decode(_STRINGS[tag])).strip(" ")
        except UnicodeDecodeError:
            raise Malformed("a name that does not match its encoding") from None
        tag, value = _UTF8, text.translate(_CAPITALS).encode()
    return _tlv(_SEQUENCE, _tlv(kind, oid) + _tlv(tag, value))


def subject(der: bytes) -> bytes:
    """Return the content of a certificate's subject (RFC 5280 section 4.1). Raises Malformed."""
    certificate = _only(der, _SEQUENCE)
    tag, to_be_signed = next(_all_tagged(certificate), (0, b""))
    if tag != _SEQUENCE:
        raise Malformed("not a certificate")
    fields = list(_all_tagged(to_be_signed))
    if fields and fields[0][0] == _EXPLICIT_0:  # the version; without it, it is version 1
        del fields[0]
    if len(fields) < 6 or fields[4][0] != _SEQUENCE:  # serial number, algorithm, issuer, validity, subject, key
        raise Malformed("not a certificate")
    return fields[4][1]


def _only(data: bytes, tag: int) -> bytes:
    values = list(_all_tagged(data))
    if len(values) != 1 or values[0][0] != tag:
        raise Malformed("not one value")
    return values[0][1]


def _all(data: bytes) -> Iterator[bytes]:
    return (value for _, value in _all_tagged(data))


def _all_tagged(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each value in `data`; tags of one byte are all that certificates have."""
    at = 0
    while at < len(data):
        if at + 2 > len(data):
            raise Malformed("truncated")
        tag, length = data[at], data[at + 1]
        at += 2
        if length >= 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size])
            at += size
            if not 0 < size <= 4:
                raise Malformed("an invalid length")
        if at + length > len(data):
            raise Malformed("truncated")
        yield tag, data[at : at + length]
        at += length


def _tlv(tag: int, value: bytes) -> bytes:
    size = len(value)
    if size < 0x80:
        return bytes((tag, size)) + value
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + value
