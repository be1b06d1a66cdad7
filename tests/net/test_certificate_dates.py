"""Ends of certificates, and the warnings that come in time."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from harp.net import certificates
from harp.net.certificate_dates import certificate_ends, warn_of

NOW = datetime.now(UTC).replace(microsecond=0)


def browser_certificate(certs: Path, days: int) -> None:
    """A certificate for browsers, as an admin makes one; it may have ended."""
    certificates.ensure(certs / "tmp", 1, NOW - timedelta(days=1) + timedelta(days=days))
    pem = (certs / "tmp" / "server.crt").read_bytes() + (certs / "tmp" / "server.key").read_bytes()
    (certs / "cert.pem").write_bytes(pem)


def told(certs: Path) -> list[tuple[str, str, int]]:
    with capture_logs() as events:
        warn_of(certificate_ends(certs, tunnel=True), NOW)
    return [(event["event"], Path(event["file"]).name, event["days"]) for event in events]


def test_every_certificate_in_use_is_looked_at(tmp_path: Path) -> None:
    certificates.ensure(tmp_path / "frp", 100, NOW, member=True)
    browser_certificate(tmp_path, 50)
    ends = {Path(one.file).name: one.left(NOW) for one in certificate_ends(tmp_path, tunnel=True)}
    assert ends == {
        "cert.pem": timedelta(days=50),
        **{name: timedelta(days=100) for name in ("ca.crt", "server.crt", "client.crt", "member.crt")},
    }


@pytest.mark.parametrize(
    ("days", "lines"),
    [
        (22, []),
        (21, [("certificate ends soon", "cert.pem", 21)]),
        (1, [("certificate ends soon", "cert.pem", 1)]),
        (-30, [("certificate has ended", "cert.pem", -30)]),
    ],
)
def test_a_certificate_for_browsers_is_a_warning_from_21_days_on(
    tmp_path: Path, days: int, lines: list[tuple[str, str, int]]
) -> None:
    browser_certificate(tmp_path, days)
    assert told(tmp_path) == lines


def test_the_tunnels_certificates_are_a_warning_too_also_when_they_have_ended(tmp_path: Path) -> None:
    certificates.ensure(tmp_path / "frp", 10, NOW - timedelta(days=12))
    names = ("ca.crt", "server.crt", "client.crt")
    assert told(tmp_path) == [("certificate has ended", name, -2) for name in names]


def test_what_is_not_there_or_cannot_be_read_is_left_to_who_uses_it(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nonsense")
    assert certificate_ends(tmp_path, tunnel=True) == []


def test_looking_does_not_load_the_library_that_makes_certificates(tmp_path: Path) -> None:
    browser_certificate(tmp_path, 5)
    code = (
        "import sys; from pathlib import Path; from harp.net.certificate_dates import certificate_ends;"
        f"assert len(certificate_ends(Path({str(tmp_path)!r}), tunnel=False)) == 1;"
        "assert not [name for name in sys.modules if name.startswith('cryptography')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
