"""Which files make a container trust more CAs: distributions, bundles without duplicates, OpenSSL's hashed names.

Nothing is executed in the container. What `update-ca-certificates` and its kin would do is done to their files: the CA
goes to the place for administrators' CAs, so that a later run keeps it, into the bundle, and into the hashed directory.
Certificates are DER here and told apart by their bytes; ASN.1 is read just far enough to find the subject.
"""

from __future__ import annotations

import posixpath
import re
from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha1, sha256

from msgspec import Struct

ROOT = 0  # user and group of what we make

_PEM = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----([A-Za-z0-9+/=\s]+?)-----END ")
_ASSIGNMENT = re.compile(r"([A-Z_]+)=(.*)")


class File(Struct, frozen=True):
    """A file or symbolic link in a container. `path` is absolute."""

    path: str
    content: bytes = b""
    link: str = ""  # where a symbolic link points
    mode: int = 0o644
    uid: int = ROOT
    gid: int = ROOT


class Layout(Struct, frozen=True):
    """Where a distribution keeps its CAs."""

    bundles: tuple[str, ...]  # files with all CAs; every one that exists is extended, without any the first is made
    anchors: str  # directory for administrators' CAs; "" = none
    hashed: str  # directory that OpenSSL looks into by hash


_SSL = "/etc/ssl/certs"
_BUNDLE = f"{_SSL}/ca-certificates.crt"
_DEBIAN = Layout((_BUNDLE,), "/usr/local/share/ca-certificates", _SSL)
_REDHAT = Layout(
    ("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/pki/tls/certs/ca-bundle.crt"),
    "/etc/pki/ca-trust/source/anchors",
    "/etc/pki/ca-trust/extracted/pem/directory-hash",
)
_SUSE = Layout(
    ("/var/lib/ca-certificates/ca-bundle.pem",), "/etc/pki/trust/anchors", "/var/lib/ca-certificates/openssl"
)
_ARCH = Layout(("/etc/ca-certificates/extracted/tls-ca-bundle.pem",), "/etc/ca-certificates/trust-source/anchors", _SSL)
ANY = Layout(
    (
        _BUNDLE,
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ),
    "",
    _SSL,
)
_LAYOUTS = {
    **dict.fromkeys(("debian", "ubuntu", "alpine", "wolfi", "chainguard"), _DEBIAN),
    **dict.fromkeys(("rhel", "fedora", "centos", "almalinux", "rocky", "ol", "amzn", "mariner", "azurelinux"), _REDHAT),
    **dict.fromkeys(("suse", "opensuse", "opensuse-leap", "opensuse-tumbleweed", "sles"), _SUSE),
    **dict.fromkeys(("arch", "archlinux", "manjaro"), _ARCH),
}


def layout_of(os_release: str) -> Layout:
    """The layout of the distribution that an os-release file names: its ID, else the first of ID_LIKE we know."""
    found = filter(None, map(_ASSIGNMENT.match, map(str.strip, os_release.splitlines())))
    values = {assignment[1]: assignment[2] for assignment in found}
    names = [values.get("ID", ""), *values.get("ID_LIKE", "").strip("\"'").split()]
    return next((_LAYOUTS[name] for text in names if (name := text.strip("\"'").lower()) in _LAYOUTS), ANY)


class Store(Struct, frozen=True):
    """What a container has now."""

    layout: Layout
    bundles: tuple[File, ...]  # those that exist, links followed
    hashed: frozenset[str] | None  # names in the hashed directory, None when there is none


def additions(wanted: Sequence[bytes], store: Store) -> list[File]:
    """The files to write so that all of `wanted` are trusted; what is trusted already is left alone."""
    layout = store.layout
    bundles = store.bundles or (File(layout.bundles[0]),)
    files = [changed for bundle in bundles if (changed := _extended(bundle, wanted)) is not None]
    known = set(certificates(bundles[0].content))
    new = [der for der in wanted if der not in known]
    names = _names(new)
    if layout.anchors:
        files += [File(f"{layout.anchors}/{name}.crt", pem(der)) for name, der in zip(names, new, strict=True)]
    if store.hashed is not None or posixpath.dirname(bundles[0].path) == layout.hashed:
        files += _links(layout, list(zip(names, new, strict=True)), store.hashed or frozenset())
    return files


def _extended(bundle: File, wanted: Sequence[bytes]) -> File | None:
    known = set(certificates(bundle.content))
    new = [pem(der) for der in wanted if der not in known]
    if not new:
        return None
    begin = bundle.content if not bundle.content or bundle.content.endswith(b"\n") else bundle.content + b"\n"
    return File(bundle.path, begin + b"".join(new), "", bundle.mode, bundle.uid, bundle.gid)


def _names(ders: Iterable[bytes]) -> list[str]:
    return [f"harp-{sha256(der).hexdigest()[:16]}" for der in ders]


def _links(layout: Layout, named: Sequence[tuple[str, bytes]], taken: frozenset[str]) -> Iterator[File]:
    """One link per CA, `<hash>.<number>`; CAs of one subject are numbered."""
    used = set(taken)
    for name, der in named:
        place = f"{layout.anchors}/{name}.crt" if layout.anchors else f"{name}.pem"
        digest = subject_hash(der)
        number = 0
        while f"{digest}.{number}" in used:
            number += 1
        link = f"{digest}.{number}"
        used.add(link)
        if not layout.anchors:
            yield File(f"{layout.hashed}/{place}", pem(der))
        yield File(f"{layout.hashed}/{link}", link=place, mode=0o777)


# Certificates


def certificates(text: bytes) -> list[bytes]:
    """The certificates of PEM text as DER, in order, each once. What cannot be read is left out."""
    found: dict[bytes, None] = {}
    for block in _PEM.finditer(text):
        try:
            der = a2b_base64(block[1])
            subject_hash(der)
        except (Error, Malformed):
            continue
        found[der] = None
    return list(found)


def pem(der: bytes) -> bytes:
    """A certificate as text."""
    text = b2a_base64(der, newline=False)
    lines = b"\n".join(text[start : start + 64] for start in range(0, len(text), 64))
    return b"-----BEGIN CERTIFICATE-----\n%b\n-----END CERTIFICATE-----\n" % lines


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
    """The name under which OpenSSL looks for this CA: 8 hexadecimal digits, as `openssl x509 -hash` prints them."""
    canonical = b"".join(_tlv(_SET, b"".join(sorted(map(_canonical, _all(rdn))))) for rdn in _all(subject(der)))
    return sha1(canonical, usedforsecurity=False).digest()[3::-1].hex()


def _canonical(attribute: bytes) -> bytes:
    """One attribute in the form that OpenSSL compares: text in UTF-8, lower case, single blanks."""
    parts = list(_all_tagged(attribute))
    if len(parts) != 2:
        raise Malformed("a name with an odd attribute")
    (kind, oid), (tag, value) = parts
    if tag in _STRINGS:
        try:
            text = _BLANKS.sub(" ", value.decode(_STRINGS[tag])).strip(" ")
        except UnicodeDecodeError:
            raise Malformed("a name that is not in its own encoding") from None
        tag, value = _UTF8, text.translate(_CAPITALS).encode()
    return _tlv(_SEQUENCE, _tlv(kind, oid) + _tlv(tag, value))


def subject(der: bytes) -> bytes:
    """The content of a certificate's subject (RFC 5280 section 4.1). Raises Malformed."""
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
            raise Malformed("cut off")
        tag, length = data[at], data[at + 1]
        at += 2
        if length >= 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size])
            at += size
            if not 0 < size <= 4:
                raise Malformed("a length that is no length")
        if at + length > len(data):
            raise Malformed("cut off")
        yield tag, data[at : at + length]
        at += length


def _tlv(tag: int, value: bytes) -> bytes:
    size = len(value)
    if size < 0x80:
        return bytes((tag, size)) + value
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + value
