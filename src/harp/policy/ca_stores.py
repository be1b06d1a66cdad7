"""Which files make a container trust more CAs: distributions, bundles without duplicates, OpenSSL's hashed names.

Nothing is executed in the container. The work of `update-ca-certificates` and similar tools is done on their files: the
CA goes to the place for administrators' CAs, so that a later run keeps it, into the bundle and the hashed directory.
Certificates are DER here and told apart by their bytes.
"""

from __future__ import annotations

import posixpath
import re
from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256

from msgspec import Struct

from harp.policy.subject_hash import Malformed, subject_hash

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
DEBIAN = Layout((_BUNDLE,), "/usr/local/share/ca-certificates", _SSL)
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
    **dict.fromkeys(("debian", "ubuntu", "alpine", "wolfi", "chainguard"), DEBIAN),
    **dict.fromkeys(("rhel", "fedora", "centos", "almalinux", "rocky", "ol", "amzn", "mariner", "azurelinux"), _REDHAT),
    **dict.fromkeys(("suse", "opensuse", "opensuse-leap", "opensuse-tumbleweed", "sles"), _SUSE),
    **dict.fromkeys(("arch", "archlinux", "manjaro"), _ARCH),
}


def layout_of(os_release: str) -> Layout:
    """Return the layout of the distribution that an os-release file names.

    Its ID, else the first of ID_LIKE we know.
    """
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
    """Return the files to write so that all of `wanted` are trusted; those already trusted are left alone."""
    layout = store.layout
    bundles = store.bundles or (File(layout.bundles[0]),)
    lacking = [_lacking(bundle, wanted) for bundle in bundles]
    files = [_extended(bundle, new) for bundle, new in zip(bundles, lacking, strict=True) if new]
    new = lacking[0]
    names = _names(new)
    if layout.anchors:
        files += [File(f"{layout.anchors}/{name}.crt", pem(der)) for name, der in zip(names, new, strict=True)]
    if store.hashed is not None or posixpath.dirname(bundles[0].path) == layout.hashed:
        files += _links(layout, list(zip(names, new, strict=True)), store.hashed or frozenset())
    return files


def _lacking(bundle: File, wanted: Sequence[bytes]) -> list[bytes]:
    known = set(certificates(bundle.content))
    return [der for der in wanted if der not in known]


def _extended(bundle: File, new: Sequence[bytes]) -> File:
    begin = bundle.content if not bundle.content or bundle.content.endswith(b"\n") else bundle.content + b"\n"
    return File(bundle.path, begin + b"".join(map(pem, new)), "", bundle.mode, bundle.uid, bundle.gid)


def _names(ders: Iterable[bytes]) -> list[str]:
    return [f"harp-{sha256(der).hexdigest()[:16]}" for der in ders]


def _links(layout: Layout, named: Sequence[tuple[str, bytes]], taken: frozenset[str]) -> Iterator[File]:
    """Yield one link per CA, `<hash>.<number>`; CAs of one subject are numbered."""
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
    """Return the certificates of PEM text as DER, in order, each once. What cannot be read is left out."""
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
    """Return a certificate as text."""
    text = b2a_base64(der, newline=False)
    lines = b"\n".join(text[start : start + 64] for start in range(0, len(text), 64))
    return b"-----BEGIN CERTIFICATE-----\n%b\n-----END CERTIFICATE-----\n" % lines
