"""What the handshake in memory finds wrong; the tests of the certificates show that it passes what is right."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harp.net import certificate_maker, certificates
from harp.net.tls_selfcheck import Lifetime, lifetime_of, selfcheck
from harp.policy.ports import SERVER_NAME

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    certificates.ensure(tmp_path / "frp", 100, NOW)
    return tmp_path / "frp"


def checked(directory: Path, name: str = SERVER_NAME) -> list[Lifetime]:
    return selfcheck(certificates.server_context(directory), directory, name)


def test_the_lifetimes_of_ca_server_and_client_are_told(made: Path) -> None:
    life = Lifetime(NOW - certificate_maker.BACKDATE, NOW + timedelta(days=100))
    assert checked(made) == [life, life, life]


def test_a_server_of_another_name_is_refused(made: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        checked(made, "another.nc")


@pytest.mark.parametrize("stem", ["client", "server"])
def test_a_pair_of_another_ca_is_refused(made: Path, tmp_path: Path, stem: str) -> None:
    certificates.ensure(tmp_path / "other", 100, NOW)
    for suffix in ("crt", "key"):
        (tmp_path / "other" / f"{stem}.{suffix}").replace(made / f"{stem}.{suffix}")
    with pytest.raises(ssl.SSLError):
        checked(made)


@pytest.mark.parametrize("name", ["client.crt", "client.key"])
def test_a_missing_file_is_an_error(made: Path, name: str) -> None:
    (made / name).unlink()
    with pytest.raises(FileNotFoundError):
        checked(made)


def test_a_certificate_that_has_ended_is_refused(tmp_path: Path) -> None:
    certificates.ensure(tmp_path, 1, NOW - timedelta(days=2))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        checked(tmp_path)


@pytest.mark.parametrize("day", [datetime(2026, 1, 5, tzinfo=UTC), datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)])
def test_dates_are_read_as_the_ssl_module_reads_them(day: datetime) -> None:
    text = f"{day:%b} {day.day:2} {day:%H:%M:%S %Y} GMT"
    life = lifetime_of({"notBefore": text, "notAfter": text})
    assert life.begin == life.end == day
    assert day.timestamp() == ssl.cert_time_to_seconds(text)
