"""What makes a container trust a CA; OpenSSL itself says whether it does."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.name import _ASN1Type as Asn1
from cryptography.x509.oid import NameOID

from harp.policy.ca_stores import (
    ANY,
    File,
    Layout,
    Store,
    additions,
    certificates,
    layout_of,
    pem,
)
from harp.policy.subject_hash import Malformed, subject, subject_hash

NOW = datetime.now(UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
ORGANISATION, COMMON = NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME

NAMES = {
    "plain": x509.Name([x509.NameAttribute(COMMON, "Plain CA")]),
    "blanks": x509.Name([x509.NameAttribute(ORGANISATION, "  My \t  Org  "), x509.NameAttribute(COMMON, "A  B")]),
    "umlauts": x509.Name([x509.NameAttribute(COMMON, "Ärger & Größe ÄÖ")]),
    "printable": x509.Name([x509.NameAttribute(COMMON, "Printable CA", Asn1.PrintableString)]),
    "bmp": x509.Name([x509.NameAttribute(COMMON, "Weite Zeichen Ω", Asn1.BMPString)]),
    "mail": x509.Name([x509.NameAttribute(NameOID.EMAIL_ADDRESS, "CA@Example.COM", Asn1.IA5String)]),
    "several in one": x509.Name(
        [
            x509.RelativeDistinguishedName(
                [x509.NameAttribute(ORGANISATION, "Zeta"), x509.NameAttribute(COMMON, "Alpha CA")]
            ),
            x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COUNTRY_NAME, "DE")]),
        ]
    ),
    "long": x509.Name([x509.NameAttribute(ORGANISATION, "o" * 64), x509.NameAttribute(COMMON, "Ä" * 32)]),
}


def issued(subject_name: x509.Name, issuer: x509.Name, *, ca: bool) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(subject_name)
        .issuer_name(issuer)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("cloud.example")]), critical=False)
        .sign(KEY, hashes.SHA256())
    )


def authority(name: str) -> bytes:
    return issued(NAMES[name], NAMES[name], ca=True).public_bytes(Encoding.DER)


def trusted(directory: Path, ca: x509.Name, tmp_path: Path) -> bool:
    """Does OpenSSL, looking into a hashed directory, trust a certificate that `ca` has signed?"""
    leaf = issued(x509.Name([]), ca, ca=False)
    key = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "leaf.pem").write_bytes(key + leaf.public_bytes(Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "leaf.pem")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(capath=str(directory))
    one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(one, two, server_hostname="cloud.example"), server.wrap_bio(two, one, server_side=True)]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_openssl_finds_a_ca_under_our_hash_of_its_subject(name: str, tmp_path: Path) -> None:
    der = authority(name)
    store = tmp_path / "store"
    store.mkdir()
    assert not trusted(store, NAMES[name], tmp_path)
    (store / f"{subject_hash(der)}.0").write_bytes(pem(der))
    assert trusted(store, NAMES[name], tmp_path)


def test_the_subject_is_the_certificates_own_name() -> None:
    certificate = issued(NAMES["umlauts"], NAMES["plain"], ca=False)
    content = NAMES["umlauts"].public_bytes()[2:]
    assert subject(certificate.public_bytes(Encoding.DER)) == content


def test_certificates_are_cut_out_of_text_once_each_and_in_order() -> None:
    one, two = authority("plain"), authority("mail")
    text = b"# a comment\n" + pem(two) + b"\r\nmore\n" + pem(one).replace(b"\n", b"\r\n") + pem(two)
    assert certificates(text) == [two, one]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ],
)
def test_what_is_no_certificate_is_left_out(text: bytes) -> None:
    assert certificates(text) == []


def test_a_certificate_cut_anywhere_is_no_certificate() -> None:
    der = authority("plain")
    for cut in range(len(der)):
        with pytest.raises(Malformed):
            subject(der[:cut])


def test_pem_is_what_openssl_writes() -> None:
    certificate = issued(NAMES["plain"], NAMES["plain"], ca=True)
    assert pem(certificate.public_bytes(Encoding.DER)) == certificate.public_bytes(Encoding.PEM)


# Distributions

DEBIAN_ANCHORS = "/usr/local/share/ca-certificates"


@pytest.mark.parametrize(
    ("os_release", "anchors"),
    [
        ('PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\n', DEBIAN_ANCHORS),
        ('ID="ubuntu"\nID_LIKE=debian\n', DEBIAN_ANCHORS),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'\n", DEBIAN_ANCHORS),
        ("ID=alpine", DEBIAN_ANCHORS),
        ("ID=wolfi", DEBIAN_ANCHORS),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"', "/etc/pki/ca-trust/source/anchors"),
        ('ID="amzn"\nID_LIKE="fedora"', "/etc/pki/ca-trust/source/anchors"),
        ('ID=nobara\nID_LIKE="rhel centos fedora"', "/etc/pki/ca-trust/source/anchors"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"', "/etc/pki/trust/anchors"),
        ("ID=arch", "/etc/ca-certificates/trust-source/anchors"),
        ("# ID=debian, not alpine\nID=unheard-of\nNAME=alpine\nHOME_URL=https://debian.org", ""),
        ("", ""),
    ],
)
def test_a_distribution_is_known_by_its_id_then_by_what_it_is_like(os_release: str, anchors: str) -> None:
    assert layout_of(os_release).anchors == anchors


# Additions

LAYOUT = Layout(("/etc/bundle.crt",), "/anchors", "/etc/hashed")
ONE, TWO = authority("plain"), authority("mail")


def found(files: list[File]) -> dict[str, File]:
    return {file.path: file for file in files}


def test_only_what_is_new_is_added_to_bundle_anchors_and_links() -> None:
    bundle = File("/etc/bundle.crt", b"# ours\n" + pem(ONE), "", 0o640, 5, 6)
    files = found(additions([ONE, TWO], Store(LAYOUT, (bundle,), frozenset({"x.0"}))))
    anchor, link = sorted(files.keys() - {"/etc/bundle.crt"})
    assert files["/etc/bundle.crt"] == File("/etc/bundle.crt", bundle.content + pem(TWO), "", 0o640, 5, 6)
    assert files[anchor].content == pem(TWO)
    assert files[anchor].mode == 0o644
    assert (link, files[link].link) == (f"/etc/hashed/{subject_hash(TWO)}.0", anchor)


def test_nothing_new_is_nothing_to_do() -> None:
    bundle = File("/etc/bundle.crt", pem(TWO) + pem(ONE))
    assert additions([ONE, TWO], Store(LAYOUT, (bundle,), frozenset())) == []


def test_a_bundle_without_a_last_line_end_gets_one() -> None:
    bundle = File("/etc/bundle.crt", pem(ONE).rstrip())
    files = found(additions([TWO], Store(LAYOUT, (bundle,), None)))
    assert certificates(files["/etc/bundle.crt"].content) == [ONE, TWO]


def test_names_taken_in_the_hashed_directory_are_passed_over() -> None:
    digest = subject_hash(TWO)
    store = Store(LAYOUT, (File("/etc/bundle.crt"),), frozenset({f"{digest}.0", f"{digest}.1"}))
    assert f"/etc/hashed/{digest}.2" in found(additions([TWO], store))


def test_two_cas_of_one_subject_get_two_links() -> None:
    twin = authority("mail")
    paths = found(additions([TWO, twin], Store(LAYOUT, (File("/etc/bundle.crt"),), frozenset())))
    assert {f"/etc/hashed/{subject_hash(TWO)}.{number}" for number in (0, 1)} <= paths.keys()


def test_without_a_hashed_directory_no_links_are_made() -> None:
    paths = found(additions([TWO], Store(LAYOUT, (File("/etc/bundle.crt"),), None)))
    assert not any(path.startswith("/etc/hashed") for path in paths)


def test_every_bundle_that_exists_is_extended() -> None:
    bundles = (File("/a.pem", pem(ONE)), File("/b.pem", pem(TWO)))
    files = found(additions([ONE, TWO], Store(Layout(("/a.pem", "/b.pem"), "", "/h"), bundles, None)))
    assert certificates(files["/a.pem"].content) == [ONE, TWO]
    assert certificates(files["/b.pem"].content) == [TWO, ONE]


def test_an_image_that_has_nothing_gets_the_usual_bundle_and_hashed_names_beside_it() -> None:
    files = found(additions([ONE, TWO], Store(ANY, (), None)))
    assert certificates(files["/etc/ssl/certs/ca-certificates.crt"].content) == [ONE, TWO]
    link = files[f"/etc/ssl/certs/{subject_hash(ONE)}.0"].link
    assert files[f"/etc/ssl/certs/{link}"].content == pem(ONE)
