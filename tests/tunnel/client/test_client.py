"""When our FRP client tries again, and how it trusts a server (F 5.2, F 10)."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harp.errors import SettingsError
from harp.net import certificates
from harp.tunnel.client.client import Backoff, client_context
from harp.tunnel.client.frpc_config import ClientTls
from tests.fakes.clock import Clock


def backoff(clock: Clock, chance: float = 0.0) -> Backoff:
    return Backoff(now=clock, chance=lambda: chance)


def test_before_the_first_login_the_waits_are_2_4_8_and_then_10_seconds() -> None:
    waits = backoff(Clock())
    assert [waits.after_failure(first=True) for _ in range(6)] == [2, 4, 8, 10, 10, 10]


def test_later_failures_wait_from_1_to_20_seconds() -> None:
    waits = backoff(Clock())
    assert [waits.after_failure(first=False) for _ in range(7)] == [1, 2, 4, 8, 16, 20, 20]


def test_clients_do_not_come_back_all_at_once() -> None:
    assert backoff(Clock(), chance=1.0).after_failure(first=True) == pytest.approx(2.2)


def test_endless_failures_do_not_overflow() -> None:
    waits = backoff(Clock())
    assert max(waits.after_failure(first=False) for _ in range(5000)) == 20


def test_a_lost_tunnel_is_replaced_at_once() -> None:
    clock = Clock()
    waits = backoff(clock)
    for _ in range(5):
        assert waits.after_loss() == 0
        clock.now += 61


def test_a_tunnel_that_is_lost_again_and_again_is_tried_quickly_three_times_and_then_more_and_more_slowly() -> None:
    waits = backoff(Clock())
    assert [waits.after_loss() for _ in range(10)] == [0, 0.2, 0.2, 0.2, 1, 2, 4, 8, 16, 20]


def test_a_login_between_failures_starts_the_waits_again() -> None:
    waits = backoff(Clock())
    waits.after_failure(first=False)
    waits.after_failure(first=False)
    waits.after_loss()
    assert waits.after_failure(first=False) == 1


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certs")
    certificates.ensure(directory, 30, datetime.now(UTC))
    return directory


def test_without_a_ca_nothing_is_verified() -> None:
    context = client_context(ClientTls())
    assert context.verify_mode == ssl.CERT_NONE
    assert not context.check_hostname


def test_with_a_ca_chain_and_name_are_verified(certs: Path) -> None:
    context = client_context(ClientTls(ca=str(certs / "ca.crt")))
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("tls", "problem"),
    [
        (ClientTls(ca="{}/nothing.crt"), "trustedCaFile {}/nothing.crt: No such file or directory"),
        (ClientTls(ca="{}/ca.key"), "trustedCaFile {}/ca.key: "),
        (
            ClientTls(certificate="{}/client.crt", key="{}/server.key"),
            "certFile {}/client.crt and keyFile {}/server.key: ",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_named(certs: Path, tls: ClientTls, problem: str) -> None:
    here = str(certs)
    tls = ClientTls(tls.ca.format(here), tls.certificate.format(here), tls.key.format(here))
    with pytest.raises(SettingsError) as caught:
        client_context(tls)
    assert str(caught.value).startswith(problem.replace("{}", here))
