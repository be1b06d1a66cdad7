"""The maker of the tunnel's certificates: fills a directory, renews its certificates, and repairs mismatches (A 7.2).

`certificates` loads this module when a directory is not in order: its library costs ten megabytes and a third of the
time to start.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import (
    Certificate,
    CertificateBuilder,
    ExtensionType,
    Name,
    ObjectIdentifier,
    load_pem_x509_certificates,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec import Struct

from harp.errors import SettingsError, words_of
from harp.net.certificates import Report, ends_soon, words_of_file
from harp.policy.ports import MEMBER_MARK, SERVER_NAME

CLIENT_NAME = "harp.client.nc"
MEMBER_NAME = "harp.member.nc"
CA_NAME = "HaRP tunnel CA"  # not SERVER_NAME: equal names can make a leaf look self-signed to OpenSSL (F 1.2)

BACKDATE = timedelta(hours=1)  # clocks of remote engines run late
TOGETHER = timedelta(minutes=10)  # certificates made within it come from one first start, or from two at a time


def complete(directory: Path, validity: timedelta, now: datetime, *, member: bool = False) -> Report:
    """Create, renew and repair what `directory` needs, as `certificates.ensure` describes.

    Raises SettingsError with every reason why the server cannot run with it.
    """
    work = _Directory(directory, validity, now, (*_LEAVES, _MEMBER) if member else _LEAVES)
    try:
        work.complete()
    except OSError as error:
        work.problems.append(f"{directory}: {words_of(error)}")
    if work.problems:
        raise SettingsError(work.problems)
    return Report(tuple(work.made), tuple(work.warnings))


def throwaway(now: datetime) -> bytes:
    """Return key and certificate of the server's name as PEM, for clients that verify nothing."""
    key = _new_key()
    return _pem(key) + _sign_ca(key, _common_name(SERVER_NAME), now, timedelta(days=3650)).public_bytes(Encoding.PEM)


class _LeafKind(Struct, frozen=True):
    """One of the certificates that the CA signs."""

    stem: str  # file name without suffix
    name: str  # common name and only DNS name
    needed: bool  # can the server run without it?
    key_mode: int
    uri: str = ""  # what marks it besides the name

    def purposes(self) -> list[ObjectIdentifier]:
        """Return its extended key usages."""
        purposes = {"server": [ExtendedKeyUsageOID.SERVER_AUTH], "client": [ExtendedKeyUsageOID.CLIENT_AUTH]}
        return purposes.get(self.stem, [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


# `docker cp` and bind mounts keep mode and owner, and ExApps run as any user: a client key only root can read is a
# client key many of them cannot use. It is shared by all clients anyway, and says nothing without the tunnel's token.
_LEAVES = (
    _LeafKind("server", SERVER_NAME, needed=True, key_mode=0o600),
    _LeafKind("client", CLIENT_NAME, needed=False, key_mode=0o644),
)
_MEMBER = _LeafKind("member", MEMBER_NAME, needed=True, key_mode=0o600, uri=MEMBER_MARK)  # where there are replicas


class _Ca(Struct, frozen=True):
    """The CA with its key, which signs."""

    certificate: Certificate
    key: CertificateIssuerPrivateKeyTypes


class _Directory:
    """One view of the directory. `problems` keep the server from running, `warnings` do not."""

    def __init__(self, path: Path, validity: timedelta, now: datetime, leaves: tuple[_LeafKind, ...]) -> None:
        self._path = path
        self._leaves = leaves
        self._validity = validity
        self._now = now
        self._ca: Certificate | None = None
        self._signer: _Ca | None = None
        self.made: list[str] = []
        self.warnings: list[str] = []
        self.problems: list[str] = []

    def complete(self) -> None:
        """Bring CA and leaves up to date, the CA first: leaves are signed with it."""
        self._settle_ca()
        for leaf in self._leaves:
            self._settle_leaf(leaf)

    def _settle_ca(self) -> None:
        """Find or create the CA. An existing one without its key is fine until something has to be signed."""
        certificate, key = self._certificate("ca.crt"), self._key("ca.key")
        if certificate is not None and key is not None and self._is_mixed(certificate, key):
            certificate = self._sign_again(key, certificate.subject)
        if certificate is None and not self.problems:
            certificate, key = self._make_ca(key)
        self._ca = certificate
        if certificate is None:
            return
        if key is not None and key.public_key() != certificate.public_key():
            self.warnings.append(f"{self._path / 'ca.key'} does not belong to ca.crt: nothing can be renewed with it")
        elif key is not None:
            self._signer = _Ca(certificate, key)
        if self._ends_soon(certificate):
            self.warnings.append(
                f"{self._path / 'ca.crt'} ends on {_day(certificate)}: clients need files of a new CA; "
                "remove the directory, restart, and give every engine and ExApp the new files"
            )

    def _make_ca(
        self, key: CertificateIssuerPrivateKeyTypes | None
    ) -> tuple[Certificate | None, CertificateIssuerPrivateKeyTypes | None]:
        """Return a new CA; or, when only its certificate was lost, the same CA again under the name its leaves know."""
        leaves = [leaf for name in _LEAVES if (leaf := self._certificate(f"{name.stem}.crt"))]
        if key is None and leaves:
            self.problems.append(
                f"{self._path / 'ca.crt'} is missing, and so is ca.key: put the CA of the other certificates back, "
                "or remove the directory to have everything created again (clients need the new files then)"
            )
            return None, None
        key = key or self._write_key("ca.key", 0o600)
        return self._sign_again(key, leaves[0].issuer if leaves else _common_name(CA_NAME)), key

    def _sign_again(self, key: CertificateIssuerPrivateKeyTypes, name: Name) -> Certificate:
        certificate = _sign_ca(key, name, self._now, self._validity)
        self._write_certificate("ca.crt", certificate, "made")
        return certificate

    def _is_mixed(self, certificate: Certificate, key: CertificateIssuerPrivateKeyTypes) -> bool:
        """Return whether two processes have made the directory at once: the CA is of one, its key of the other.

        Then there is no useful copy of it yet: everything was created at the same time, and does not match. Any other
        CA without its key is good for what it has signed, and stays.
        """
        if key.public_key() == certificate.public_key():
            return False
        leaves = [leaf for name in _LEAVES if (leaf := self._certificate(f"{name.stem}.crt"))]
        begins = [made.not_valid_before_utc for made in (certificate, *leaves)]
        if any(leaf.issuer != certificate.subject for leaf in leaves) or max(begins) - min(begins) > TOGETHER:
            return False
        return not leaves or not all(_signed_by(leaf, certificate) for leaf in leaves)

    def _settle_leaf(self, leaf: _LeafKind) -> None:
        """Create, renew or only check one leaf certificate."""
        files = (f"{leaf.stem}.crt", f"{leaf.stem}.key")
        certificate, key = self._certificate(files[0]), self._key(files[1])
        if self._ca is None:
            return  # without CA nothing more can be said
        if certificate is not None and key is not None:
            self._check_leaf(leaf, certificate, key, self._ca)
            return
        missing = [name for name in files if not (self._path / name).exists()]
        if len(missing) != (certificate is None) + (key is None):
            return  # one cannot be read: that is noted, and it is not ours to overwrite
        if self._signer is None:
            text = f"{self._path}: {' and '.join(missing)} missing, and without a matching ca.key cannot be made"
            if leaf.uri:
                text += f": issue one for clients and servers, with the subjectAltName URI:{leaf.uri}, and put it there"
            (self.problems if leaf.needed else self.warnings).append(text)
            return
        self._issue(leaf, key or self._write_key(files[1], leaf.key_mode), self._signer, "made")

    def _check_leaf(
        self, leaf: _LeafKind, certificate: Certificate, key: CertificateIssuerPrivateKeyTypes, ca: Certificate
    ) -> None:
        path = self._path / f"{leaf.stem}.crt"
        fits = certificate.public_key() == key.public_key()
        ours = _signed_by(certificate, ca)
        alone = len(_read_certificates(path)) == 1  # a chain is somebody's own arrangement
        if self._signer is not None and alone and certificate.issuer == ca.subject and not (fits and ours):
            self._issue(leaf, key, self._signer, "made again, because it did not fit")
            return
        if not fits:
            text = f"{path} does not belong to {leaf.stem}.key: put the right pair there, or remove both"
            (self.problems if leaf.needed else self.warnings).append(text)
            return
        if leaf.uri:
            self._check_mark(leaf, certificate, ours=ours or not alone)
        else:
            self._check_name(leaf, certificate, ours=ours or not alone)
        if self._ends_soon(certificate):
            self._renew(leaf, certificate, key, ours=ours)

    def _check_name(self, leaf: _LeafKind, certificate: Certificate, *, ours: bool) -> None:
        path = self._path / f"{leaf.stem}.crt"
        if not ours:
            self.warnings.append(f"{path} is not signed by ca.crt: clients that verify it will reject it")
        if leaf.needed and leaf.name not in _dns_names(certificate):
            self.warnings.append(f"{path} is not for the name {leaf.name}: clients that verify it will reject it")

    def _check_mark(self, leaf: _LeafKind, certificate: Certificate, *, ours: bool) -> None:
        path = self._path / f"{leaf.stem}.crt"
        if not ours:
            self.problems.append(f"{path} is not signed by ca.crt: replicas would not recognise each other")
        elif leaf.uri not in _uris(certificate):
            self.problems.append(f"{path} lacks the subjectAltName URI:{leaf.uri}: issue it with that, or remove it")

    def _renew(
        self, leaf: _LeafKind, certificate: Certificate, key: CertificateIssuerPrivateKeyTypes, *, ours: bool
    ) -> None:
        """Sign the same key again, if that is possible and useful."""
        path = self._path / f"{leaf.stem}.crt"
        why = "the key of its CA is not here"
        if ours and self._signer is not None:
            why = "its CA ends as soon"
            if self._end(self._signer) > certificate.not_valid_after_utc:
                try:
                    self._issue(leaf, key, self._signer, "renewed")
                except OSError as error:  # a read-only volume, most likely; the old one is still good
                    why = words_of(error)
                else:
                    return
        self.warnings.append(f"{path} ends on {_day(certificate)} and cannot be renewed: {why}")

    def _issue(self, leaf: _LeafKind, key: CertificateIssuerPrivateKeyTypes, signer: _Ca, done: str) -> None:
        certificate = _sign_leaf(leaf, key, signer, self._now, self._end(signer))
        self._write_certificate(f"{leaf.stem}.crt", certificate, done)

    def _end(self, signer: _Ca) -> datetime:
        """When a leaf signed now ends, in whole seconds as certificates have them."""
        return min((self._now + self._validity).replace(microsecond=0), signer.certificate.not_valid_after_utc)

    def _ends_soon(self, certificate: Certificate) -> bool:
        return ends_soon(certificate.not_valid_before_utc, certificate.not_valid_after_utc, self._now)

    def _certificate(self, name: str) -> Certificate | None:
        """Return the first certificate of a file; None when it is missing, or cannot be read, which is noted."""
        try:
            return _read_certificates(self._path / name)[0]
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._note_unreadable(name, error)
            return None

    def _key(self, name: str) -> CertificateIssuerPrivateKeyTypes | None:
        """Return a private key; None when it is missing, or cannot be read, which is noted."""
        try:
            return _read_key(self._path / name)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:  # TypeError: the key has a pass phrase
            self._note_unreadable(name, error)
            return None

    def _note_unreadable(self, name: str, error: Exception) -> None:
        text = f"{self._path / name} cannot be read: {words_of_file(error)}"
        needed = name in ("ca.crt", "server.crt", "server.key") or not (self._path / "ca.crt").exists()
        notes = self.problems if needed else self.warnings
        if text not in notes:
            notes.append(text)

    def _write_key(self, name: str, mode: int) -> CertificateIssuerPrivateKeyTypes:
        key = _new_key()
        _replace(self._path / name, _pem(key), mode)
        return key

    def _write_certificate(self, name: str, certificate: Certificate, done: str) -> None:
        _replace(self._path / name, certificate.public_bytes(Encoding.PEM), 0o644)
        self.made.append(f"{self._path / name} {done}, good until {_day(certificate)}")


def _new_key() -> CertificateIssuerPrivateKeyTypes:
    """P-256: Go and OpenSSL take it like RSA, and it costs 0.2 ms where RSA 2048 costs 60."""
    return ec.generate_private_key(ec.SECP256R1())


def _pem(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _read_key(path: Path) -> CertificateIssuerPrivateKeyTypes:
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise TypeError("neither RSA, EC nor Ed25519")
    return key


def _read_certificates(path: Path) -> list[Certificate]:
    return load_pem_x509_certificates(path.read_bytes())


def _common_name(text: str) -> Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _sign_ca(key: CertificateIssuerPrivateKeyTypes, name: Name, now: datetime, validity: timedelta) -> Certificate:
    extensions: list[tuple[ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_key_usage(sign_certificates=True), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    ]
    return _sign(_builder(key, name, now, now + validity).issuer_name(name), key, extensions)


def _sign_leaf(
    leaf: _LeafKind, key: CertificateIssuerPrivateKeyTypes, ca: _Ca, now: datetime, end: datetime
) -> Certificate:
    names: list[x509.GeneralName] = [x509.DNSName(leaf.name)]
    if leaf.uri:
        names.append(x509.UniformResourceIdentifier(leaf.uri))
    extensions: list[tuple[ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(sign_certificates=False), True),
        (x509.ExtendedKeyUsage(leaf.purposes()), False),
        (x509.SubjectAlternativeName(names), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (_authority(ca), False),
    ]
    builder = _builder(key, _common_name(leaf.name), now, end).issuer_name(ca.certificate.subject)
    return _sign(builder, ca.key, extensions)


def _builder(key: CertificateIssuerPrivateKeyTypes, subject: Name, now: datetime, end: datetime) -> CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(end)
    )


def _sign(
    builder: CertificateBuilder,
    signer: CertificateIssuerPrivateKeyTypes,
    extensions: list[tuple[ExtensionType, bool]],
) -> Certificate:
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def _key_usage(*, sign_certificates: bool) -> ExtensionType:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_encipherment=not sign_certificates,  # for an RSA key of the openssl recipe and TLS 1.2 without (EC)DHE
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(ca: _Ca) -> ExtensionType:
    """Return the CA's own key identifier, or one computed from its key when it names none."""
    with suppress(x509.ExtensionNotFound):
        identifier = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())


def _signed_by(certificate: Certificate, ca: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _dns_names(certificate: Certificate) -> list[str]:
    with suppress(x509.ExtensionNotFound):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.DNSName)
    return []


def _uris(certificate: Certificate) -> list[str]:
    with suppress(x509.ExtensionNotFound):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.UniformResourceIdentifier)
    return []


def _day(certificate: Certificate) -> str:
    return certificate.not_valid_after_utc.date().isoformat()


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Write a file as a whole: readers see the old one or the new one, also after a crash."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            file.write(content)
            file.flush()
            os.fsync(handle)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
