"""What `harp check` remarks on beside mistakes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harp.commands.check import check
from harp.commands.check_remarks import IDLE, remarks_of
from harp.net import certificates
from harp.settings import examine

LEAST = {"HP_SHARED_KEY": "a key that is long enough", "NC_INSTANCE_URL": "http://cloud"}
QUIET = {**LEAST, "HP_FRP_DISABLE_TLS": "true"}


def remarks(env: dict[str, str], now: datetime | None = None) -> list[str]:
    return remarks_of(examine(env), now)


def test_usual_settings_are_not_remarked_on(tmp_path: Path) -> None:
    assert remarks({**QUIET, "HP_CERTS_DIR": str(tmp_path)}) == []


def test_an_admin_listener_that_is_open_to_others_is() -> None:
    for address, count in (("127.0.0.1:8200", 0), ("[::1]:8200", 0), ("unix:/run/a", 0), ("0.0.0.0:8200", 1)):
        assert len(remarks({**QUIET, "HP_ADMIN_ADDRESS": address})) == count


def test_a_certificate_that_ends_is(tmp_path: Path) -> None:
    certificates.ensure(tmp_path / "frp", 10, datetime.now(UTC))
    env = {**LEAST, "HP_CERTS_DIR": str(tmp_path)}
    assert any("server.crt ends in 9 days" in remark for remark in remarks(env))
    later = datetime.now(UTC) + timedelta(days=15)
    assert any("server.crt has expired" in remark for remark in remarks(env, later))


@pytest.mark.parametrize(
    "env",
    [
        {"HP_REAL_IP_HEADER": "CF-Connecting-IP"},
        {"HP_BLACKLIST_COUNT": "0", "HP_BAN_ACTION": "drop"},
        {"HP_FRP_CERT_VALIDITY_DAYS": "100"},
        {"HP_DOCKER_CERT_PATH": "/certs/docker"},
        {"HP_EXAPP_BIND_MOUNTS_DISABLED": "true", "HP_EXAPP_BIND_MOUNTS_ALLOWED": "/srv"},
        {"HP_CERTS_DIR": "/nowhere", "HP_EXAPPS_HTTPS_ADDRESS": "0.0.0.0:9443"},
    ],
)
def test_a_switch_that_does_nothing_is(env: dict[str, str]) -> None:
    (remark,) = remarks({**QUIET, **env})
    assert remark.partition(":")[0] in IDLE
    assert "has no effect" in remark


def test_a_cluster_that_is_not_enabled_is() -> None:
    (remark,) = remarks({**QUIET, "HP_K8S_PROBES": "false", "HP_K8S_NAMESPACE": "apps"})
    assert remark == "HP_K8S_NAMESPACE, HP_K8S_PROBES: no effect, because HP_K8S_ENABLED is not true"


def test_the_usual_address_of_https_without_a_certificate_is_not() -> None:
    assert remarks({**QUIET, "HP_CERTS_DIR": "/nowhere", "HP_EXAPPS_HTTPS_ADDRESS": "0.0.0.0:8781"}) == []


def test_strict_fails_for_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    warned = {**QUIET, "HP_REAL_IP_HEADER": "CF-Connecting-IP"}
    assert check(warned) == 0
    assert check(warned, strict=True) == 1
    assert "1 warning:" in capsys.readouterr().out
    assert check(QUIET, strict=True) == 0
