"""The tunnel's certificates: made, kept, completed, renewed, and read by OpenSSL (A 7.2, F 1.2)."""

from __future__ import annotations

import fcntl
import os
import shutil
import ssl
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from harp.errors import SettingsError
from harp.net import certificates
from tests.live.peers import require
from tests.net.openssl_recipe import make_with_openssl, sign_with_openssl

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
ALL = {"ca.key", "ca.crt", "server.key", "server.crt", "client.key", "client.crt"}


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def client_context(directory: Path, *, certificate_of: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(directory / "ca.crt")
    if certificate_of is not None:
        context.load_cert_chain(certificate_of / "client.crt", certificate_of / "client.key")
    return context


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "harp.nc") -> x509.Certificate:
    """Both sides in memory, to the end and one byte each way. Returns the server's certificate."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(4):
        for side in (theirs, ours):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    theirs.write(b"a")
    assert ours.read() == b"a"
    ours.write(b"b")
    assert theirs.read() == b"b"
    seen = theirs.getpeercert(binary_form=True)
    assert seen is not None
    return x509.load_der_x509_certificate(seen)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    directory = tmp_path / "certs" / "frp"
    certificates.ensure(directory, 5000, NOW)
    return directory


def test_a_missing_directory_is_made_with_everything_in_it(tmp_path: Path) -> None:
    directory = tmp_path / "certs" / "frp"
    report = certificates.ensure(directory, 5000, NOW)
    assert {path.name for path in directory.iterdir()} == ALL
    assert report.warnings == ()
    assert [line.split(" ")[0] for line in report.made] == [
        str(directory / name) for name in ("ca.crt", "server.crt", "client.crt")
    ]


def test_the_names_are_those_that_clients_verify(made: Path) -> None:
    for stem, name in (("server", "harp.nc"), ("client", "harp.client.nc")):
        leaf = certificate(made / f"{stem}.crt")
        assert leaf.subject.rfc4514_string() == f"CN={name}"
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [name]
        assert leaf.issuer == certificate(made / "ca.crt").subject != leaf.subject


def test_the_leaves_live_as_long_as_asked_and_not_longer_than_the_ca(tmp_path: Path) -> None:
    certificates.ensure(tmp_path, 90, NOW)
    ends = {certificate(tmp_path / f"{stem}.crt").not_valid_after_utc for stem in ("ca", "server", "client")}
    assert ends == {(NOW + 90 * DAY).replace(microsecond=0)}
    (tmp_path / "client.crt").unlink()
    certificates.ensure(tmp_path, 5000, NOW)
    assert certificate(tmp_path / "client.crt").not_valid_after_utc == (NOW + 90 * DAY).replace(microsecond=0)


def test_only_the_keys_that_clients_need_can_be_read_by_everybody(made: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in made.iterdir()}
    assert modes == dict.fromkeys(ALL, 0o644) | {"ca.key": 0o600, "server.key": 0o600}


def test_a_client_with_its_certificate_and_the_server_accept_each_other(made: Path) -> None:
    server = certificates.server_context(made)
    assert handshake(server, client_context(made, certificate_of=made)) == certificate(made / "server.crt")


def test_openssl_finds_nothing_wrong_even_in_its_strict_mode(made: Path) -> None:
    client = client_context(made, certificate_of=made)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server = certificates.server_context(made)
    server.verify_flags |= ssl.VERIFY_X509_STRICT
    handshake(server, client)


def test_a_client_without_certificate_is_refused(made: Path) -> None:
    with pytest.raises(ssl.SSLError, match="did not return a certificate"):
        handshake(certificates.server_context(made), client_context(made))


def test_a_client_of_another_ca_is_refused(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    certificates.ensure(other, 5000, NOW)
    with pytest.raises(ssl.SSLError, match="certificate verify failed"):
        handshake(certificates.server_context(made), client_context(made, certificate_of=other))


def test_tls_older_than_1_2_is_not_offered(made: Path) -> None:
    assert certificates.server_context(made).minimum_version == ssl.TLSVersion.TLSv1_2
    assert certificates.throwaway_context(NOW).minimum_version == ssl.TLSVersion.TLSv1_2


def test_the_throwaway_certificate_of_plain_mode_asks_for_nothing_and_satisfies_a_client_that_does_not_verify() -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    handshake(certificates.throwaway_context(NOW), client)


def test_a_complete_directory_is_left_alone(made: Path) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in made.iterdir()}
    assert certificates.ensure(made, 5000, NOW + 100 * DAY) == certificates.Report((), ())
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in made.iterdir()} == before


def test_a_complete_directory_is_found_to_be_in_order_without_the_library_that_makes_certificates(made: Path) -> None:
    program = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from harp.net.certificates import Report, ensure
assert ensure(Path(sys.argv[1]), 5000, datetime.now(UTC)) == Report((), ())
sys.exit("cryptography" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program, made], check=True)


def test_a_key_with_a_pass_phrase_is_told_and_nobody_is_asked_for_it(made: Path) -> None:
    key = load_pem_private_key((made / "server.key").read_bytes(), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (made / "server.key").write_bytes(pem)
    with pytest.raises(SettingsError, match=r"server\.key cannot be read: "):
        certificates.ensure(made, 5000, NOW)


def test_leaves_are_renewed_thirty_days_before_they_end_with_the_same_keys_and_ca(tmp_path: Path) -> None:
    certificates.ensure(tmp_path, 5000, NOW)
    for stem in ("server", "client"):
        (tmp_path / f"{stem}.crt").unlink()
    certificates.ensure(tmp_path, 365, NOW)
    kept = {name: (tmp_path / name).read_bytes() for name in ("ca.key", "ca.crt", "server.key", "client.key")}
    assert certificates.ensure(tmp_path, 365, NOW + 334 * DAY).made == ()

    report = certificates.ensure(tmp_path, 365, NOW + 336 * DAY)

    assert [line.split(" ")[1] for line in report.made] == ["renewed,", "renewed,"]
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept
    end = certificate(tmp_path / "server.crt").not_valid_after_utc
    assert end == (NOW + (336 + 365) * DAY).replace(microsecond=0)


def test_a_certificate_of_short_life_is_renewed_in_its_last_third(tmp_path: Path) -> None:
    certificates.ensure(tmp_path, 5000, NOW)
    for stem in ("server", "client"):
        (tmp_path / f"{stem}.crt").unlink()
    certificates.ensure(tmp_path, 9, NOW)
    assert certificates.ensure(tmp_path, 9, NOW + 5 * DAY).made == ()
    assert len(certificates.ensure(tmp_path, 9, NOW + 7 * DAY).made) == 2


def test_what_the_ca_does_not_outlive_is_reported_instead_of_renewed(tmp_path: Path) -> None:
    certificates.ensure(tmp_path, 90, NOW)
    report = certificates.ensure(tmp_path, 90, NOW + 80 * DAY)
    assert report.made == ()
    assert [line.removeprefix(f"{tmp_path}/").split(" ")[0] for line in report.warnings] == [
        "ca.crt",
        "server.crt",
        "client.crt",
    ]
    assert "its CA ends as soon" in report.warnings[1]


def test_a_context_made_again_serves_the_renewed_certificate(tmp_path: Path) -> None:
    certificates.ensure(tmp_path, 5000, NOW)
    client = client_context(tmp_path, certificate_of=tmp_path)
    old = handshake(certificates.server_context(tmp_path), client)
    (tmp_path / "server.crt").unlink()
    certificates.ensure(tmp_path, 400, NOW)

    assert handshake(certificates.server_context(tmp_path), client) == certificate(tmp_path / "server.crt") != old


@pytest.mark.parametrize(
    "missing", [("ca.crt",), ("server.crt",), ("client.key", "client.crt"), ("ca.crt", "server.key")]
)
def test_an_incomplete_directory_is_completed_while_the_ca_key_is_there(made: Path, missing: tuple[str, ...]) -> None:
    copied = made.parent / "copied to an engine"
    shutil.copytree(made, copied)
    for name in missing:
        (made / name).unlink()
    if "server.key" in missing:  # a certificate without its key is of no use
        (made / "server.crt").unlink()

    certificates.ensure(made, 5000, NOW)

    assert {path.name for path in made.iterdir()} == ALL
    handshake(certificates.server_context(made), client_context(copied, certificate_of=copied))


def test_an_empty_directory_is_filled(tmp_path: Path) -> None:
    """A mounted volume that Docker made: the existing system takes it for complete and fails."""
    certificates.ensure(tmp_path, 5000, NOW)
    assert {path.name for path in tmp_path.iterdir()} == ALL


def test_a_directory_with_just_the_files_the_server_needs_is_enough(made: Path) -> None:
    for name in ("ca.key", "client.key", "client.crt"):
        (made / name).unlink()
    report = certificates.ensure(made, 5000, NOW)
    assert report.made == ()
    assert report.warnings == (
        f"{made}: client.crt and client.key missing, and without a matching ca.key cannot be made",
    )
    certificates.server_context(made)


def test_all_reasons_why_a_directory_is_of_no_use_are_told_at_once(made: Path) -> None:
    (made / "ca.key").unlink()
    (made / "server.key").write_text("not a key")
    (made / "ca.crt").write_text("not a certificate")
    with pytest.raises(SettingsError) as caught:
        certificates.ensure(made, 5000, NOW)
    assert [line.removeprefix(f"{made}/").split(" ")[0] for line in caught.value.problems] == ["ca.crt", "server.key"]


def test_a_lost_ca_is_not_replaced_under_certificates_that_need_it(made: Path) -> None:
    (made / "ca.key").unlink()
    (made / "ca.crt").unlink()
    with pytest.raises(SettingsError, match=r"ca.crt is missing, and so is ca.key"):
        certificates.ensure(made, 5000, NOW)
    assert not (made / "ca.crt").exists()


def test_a_key_of_another_certificate_is_told_where_nothing_can_be_signed(made: Path) -> None:
    shutil.copy(made / "client.key", made / "server.key")
    (made / "ca.key").unlink()
    with pytest.raises(SettingsError, match=r"server.crt does not belong to server.key"):
        certificates.ensure(made, 5000, NOW)
    with pytest.raises(SettingsError, match="key values mismatch"):
        certificates.server_context(made)


@pytest.mark.parametrize("stem", ["server", "client"])
@pytest.mark.parametrize("suffix", ["crt", "key"])
def test_a_leaf_that_does_not_fit_is_made_again_and_the_ca_stays(
    made: Path, tmp_path: Path, stem: str, suffix: str
) -> None:
    other = tmp_path / "other"
    certificates.ensure(other, 5000, NOW)
    shutil.copy(other / f"{stem}.{suffix}", made / f"{stem}.{suffix}")
    before = {name: (made / name).read_bytes() for name in ("ca.crt", "ca.key", f"{stem}.key")}
    report = certificates.ensure(made, 5000, NOW)
    assert [line.split(", good")[0] for line in report.made] == [
        f"{made}/{stem}.crt made again, because it did not fit"
    ]
    assert {name: (made / name).read_bytes() for name in before} == before
    handshake(certificates.server_context(made), client_context(made, certificate_of=made))


@pytest.mark.parametrize("mixed", [("ca.key",), ("ca.crt",), ("ca.key", "server.crt"), ("ca.crt", "client.key")])
def test_what_two_first_starts_have_mixed_is_repaired(made: Path, tmp_path: Path, mixed: tuple[str, ...]) -> None:
    other = tmp_path / "other"
    certificates.ensure(other, 5000, NOW)
    for name in mixed:
        shutil.copy(other / name, made / name)
    if mixed == ("ca.key",):  # the CA has signed all of it, so it stays
        assert "does not belong to ca.crt" in certificates.ensure(made, 5000, NOW).warnings[0]
    else:
        assert certificates.ensure(made, 5000, NOW).warnings == ()
    handshake(certificates.server_context(made), client_context(made, certificate_of=made))


def test_a_chain_of_somebodys_own_is_never_replaced(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    certificates.ensure(other, 5000, NOW)
    chain = (other / "server.crt").read_bytes() + (other / "ca.crt").read_bytes()
    (made / "server.crt").write_bytes(chain)
    with pytest.raises(SettingsError, match=r"does not belong to server\.key"):
        certificates.ensure(made, 5000, NOW)
    assert (made / "server.crt").read_bytes() == chain


STARTS = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from harp.net import certificates, certificate_maker
for directory in sys.argv[1:]:
    begin, release = os.pipe()
    starts = []
    for _ in range(4):
        if not (pid := os.fork()):
            os.close(release)
            os.read(begin, 1)  # until all have started
            certificates.ensure(Path(directory), 5000, datetime.now(UTC))
            os._exit(0)
        starts.append(pid)
    os.close(release)
    print(*(os.waitpid(pid, 0)[1] for pid in starts))
"""


@pytest.mark.timeout(300)  # every start makes keys
def test_first_starts_at_the_same_time_make_one_directory(tmp_path: Path) -> None:
    directories = [tmp_path / str(number) for number in range(3)]
    argv = [sys.executable, "-c", STARTS, *map(str, directories)]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "0 0 0 0\n" * 3
    for directory in directories:
        assert certificates.ensure(directory, 5000, NOW) == certificates.Report((), ())
        handshake(certificates.server_context(directory), client_context(directory, certificate_of=directory))


def test_a_process_that_keeps_the_directory_to_itself_is_told(tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(SettingsError, match="another process has been making certificates there"):
            certificates.ensure(tmp_path, 5000, NOW, patience=0.1)
    finally:
        os.close(handle)


def test_a_key_of_another_ca_signs_nothing(made: Path) -> None:
    shutil.copy(made / "client.key", made / "ca.key")
    (made / "client.crt").unlink()
    report = certificates.ensure(made, 5000, NOW)
    assert [line.split(" ", 1)[1] for line in report.warnings] == [
        "does not belong to ca.crt: nothing can be renewed with it",
        "client.crt missing, and without a matching ca.key cannot be made",
    ]


def test_a_file_in_place_of_the_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "frp").touch()
    with pytest.raises(SettingsError, match="File exists"):
        certificates.ensure(tmp_path / "frp", 5000, NOW)


@pytest.fixture(scope="module")
def of_openssl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("openssl", "openssl")
    directory = tmp_path_factory.mktemp("openssl") / "frp"
    make_with_openssl(directory)
    return directory


def test_a_directory_of_the_openssl_recipe_is_used_as_it_is(of_openssl: Path) -> None:
    before = {path: path.read_bytes() for path in of_openssl.iterdir()}
    assert certificates.ensure(of_openssl, 5000, NOW) == certificates.Report((), ())
    assert {path: path.read_bytes() for path in of_openssl.iterdir()} == before
    handshake(certificates.server_context(of_openssl), client_context(of_openssl, certificate_of=of_openssl))


def test_leaves_of_the_openssl_recipe_are_renewed_for_clients_that_keep_their_copies(
    of_openssl: Path, tmp_path: Path
) -> None:
    renewed = tmp_path / "frp"
    shutil.copytree(of_openssl, renewed)
    sign_with_openssl(renewed, "server", days=0)

    report = certificates.ensure(renewed, 365, datetime.now(UTC) + timedelta(minutes=1))  # openssl has the true time

    assert [line.split(",")[0] for line in report.made] == [f"{renewed / 'server.crt'} renewed"]
    key = load_pem_private_key((of_openssl / "server.key").read_bytes(), None)
    assert certificate(renewed / "server.crt").public_key() == key.public_key()
    handshake(certificates.server_context(renewed), client_context(of_openssl, certificate_of=of_openssl))


def replace_leaf(directory: Path, stem: str, name: str, authority: x509.Certificate | None = None) -> None:
    """Put another certificate over the same key, as an admin does who makes one by hand."""
    key = load_pem_private_key((directory / f"{stem}.key").read_bytes(), None)
    ca_key = load_pem_private_key((directory / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    issuer = certificate(directory / "ca.crt").subject
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer if authority is None else authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + 1000 * DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(ca_key if authority is None else ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    (directory / f"{stem}.crt").write_bytes(made.public_bytes(Encoding.PEM))


def test_a_server_certificate_without_the_name_that_clients_verify_is_reported(made: Path) -> None:
    replace_leaf(made, "server", "gateway.example.com")
    assert certificates.ensure(made, 5000, NOW).warnings == (
        f"{made}/server.crt is not for the name harp.nc: clients that verify it will reject it",
    )


def test_a_certificate_of_somebody_elses_ca_is_used_and_reported(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    certificates.ensure(other, 5000, NOW)
    authority = certificate(other / "server.crt")  # any certificate with another name
    replace_leaf(made, "server", "harp.nc", authority)
    assert certificates.ensure(made, 5000, NOW).warnings == (
        f"{made}/server.crt is not signed by ca.crt: clients that verify it will reject it",
    )


def test_a_key_of_a_kind_that_tls_does_not_use_is_a_problem(made: Path) -> None:
    key = x25519.X25519PrivateKey.generate()
    (made / "server.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(SettingsError) as caught:
        certificates.ensure(made, 5000, NOW)
    assert "server.key" in caught.value.problems[0]
    assert "neither RSA, EC nor Ed25519" in caught.value.problems[0]
