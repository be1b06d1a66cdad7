"""The certificate of replicas: signed by the tunnel's CA, and told from all others that it has signed."""

from __future__ import annotations

import shutil
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harp.errors import SettingsError
from harp.net import certificates
from harp.net.member_tls import is_member, member_tls, shown
from harp.net.tls_selfcheck import handshake, load_pair
from tests.live.peers import require
from tests.net.openssl_recipe import make_with_openssl, openssl

NOW = datetime.now(UTC)
MARK = "URI:urn:harp:member"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    directory = tmp_path / "frp"
    certificates.ensure(directory, 5000, NOW, member=True)
    return directory


@pytest.fixture(scope="module")
def of_openssl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an admin has made by the recipe, and a key of a replica's certificate."""
    require("openssl", "openssl")
    directory = tmp_path_factory.mktemp("openssl") / "frp"
    make_with_openssl(directory)
    openssl(directory, "genrsa", "-out", "member.key", "2048")
    return directory


def recognised(directory: Path, other: Path) -> bool:
    """Do two replicas with these files take each other for such?"""
    return all(map(is_member, handshake(member_tls(directory).client, member_tls(other).server, None)))


def test_it_is_made_where_there_are_replicas_and_nowhere_else(tmp_path: Path) -> None:
    certificates.ensure(tmp_path, 5000, NOW)
    assert not (tmp_path / "member.crt").exists()
    before = (tmp_path / "client.crt").read_bytes()
    report = certificates.ensure(tmp_path, 5000, NOW, member=True)
    assert [line.split(" made")[0] for line in report.made] == [str(tmp_path / "member.crt")]
    assert (tmp_path / "client.crt").read_bytes() == before
    assert certificates.ensure(tmp_path, 5000, NOW, member=True) == certificates.Report((), ())


def test_its_key_is_for_harp_alone(made: Path) -> None:
    assert stat.S_IMODE((made / "member.key").stat().st_mode) == 0o600


def test_replicas_with_the_same_directory_recognise_each_other(made: Path) -> None:
    assert recognised(made, made)


def test_openssl_finds_nothing_wrong_even_in_its_strict_mode(made: Path) -> None:
    tls = member_tls(made)
    for context in (tls.client, tls.server):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    handshake(tls.client, tls.server, None)


def test_the_certificate_of_an_exapp_is_not_a_replicas(made: Path) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(made / "ca.crt")
    client.set_alpn_protocols(["harp-member"])
    load_pair(client, made, "client")
    _, ours = handshake(client, member_tls(made).server, None)
    assert not is_member(ours)


def test_the_certificate_of_the_tunnel_server_is_not_a_replicas(made: Path) -> None:
    server = certificates.server_context(made)
    server.set_alpn_protocols(["harp-member"])
    ours, _ = handshake(member_tls(made).client, server, None)
    assert not is_member(ours)


def test_of_two_cas_neither_side_takes_the_other(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    certificates.ensure(other, 5000, NOW, member=True)
    with pytest.raises(ssl.SSLCertVerificationError):
        recognised(made, other)
    assert member_tls(made).authority != member_tls(other).authority


def test_the_fingerprint_is_shown_as_openssl_has_it(made: Path) -> None:
    require("openssl", "openssl")
    text = openssl(made, "x509", "-in", "ca.crt", "-noout", "-fingerprint", "-sha256")
    assert text.strip().partition("=")[2].startswith(shown(member_tls(made).authority))


def test_it_is_renewed_in_time_with_its_key(tmp_path: Path) -> None:
    certificates.ensure(tmp_path, 5000, NOW)
    certificates.ensure(tmp_path, 20, NOW, member=True)
    key = (tmp_path / "member.key").read_bytes()
    report = certificates.ensure(tmp_path, 5000, NOW + timedelta(days=18), member=True)
    assert [line.split(",")[0] for line in report.made] == [f"{tmp_path / 'member.crt'} renewed"]
    assert (tmp_path / "member.key").read_bytes() == key


# A CA whose key is elsewhere


def test_without_the_key_of_the_ca_the_admin_is_told_what_to_issue(tmp_path: Path) -> None:
    certificates.ensure(tmp_path, 5000, NOW)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(SettingsError) as caught:
        certificates.ensure(tmp_path, 5000, NOW, member=True)
    (problem,) = caught.value.problems
    assert "member.crt and member.key missing" in problem
    assert f"subjectAltName {MARK}" in problem
    assert certificates.ensure(tmp_path, 5000, NOW) == certificates.Report((), ())


@pytest.mark.parametrize("names", [MARK, f"DNS:a.example.com,{MARK}", "DNS:harp.member.nc"])
def test_one_that_the_admin_has_issued_is_used_if_it_has_the_mark(of_openssl: Path, tmp_path: Path, names: str) -> None:
    directory = tmp_path / "frp"
    shutil.copytree(of_openssl, directory)
    (directory / "names").write_text(f"subjectAltName={names}\nextendedKeyUsage=clientAuth,serverAuth\n")
    for words in (
        "req -new -key member.key -out member.csr -subj /CN=member",
        "x509 -req -in member.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out member.crt -days 300 -extfile names",
    ):
        openssl(directory, *words.split())
    (directory / "ca.key").unlink()
    if MARK in names:
        assert certificates.ensure(directory, 5000, NOW, member=True).made == ()
        assert recognised(directory, directory)
    else:
        with pytest.raises(SettingsError, match=f"lacks the subjectAltName {MARK}"):
            certificates.ensure(directory, 5000, NOW, member=True)


def test_one_of_another_ca_cannot_be_used(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    certificates.ensure(other, 5000, NOW, member=True)
    for name in ("member.crt", "member.key"):
        (made / name).write_bytes((other / name).read_bytes())
    (made / "ca.key").unlink()
    with pytest.raises(SettingsError, match=r"member\.crt is not signed by ca\.crt"):
        certificates.ensure(made, 5000, NOW, member=True)
