"""How a step of the walk has arrived, judged."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from harp.settings import load
from harp.state.walks import SeenStep
from harp.status.doctor.roads import address_findings, name_findings

PATH = "/exapps/app_api/doctor/x/hello"
SEEN = SeenStep(PATH, "172.18.0.5", 4000, "192.0.2.1", "192.0.2.1", True, "cloud.example.com", "https", False)
INVENTED = "192.0.2.77"


def judged(
    seen: SeenStep, forged: SeenStep | None = None, *, trusted: str = "", direct: bool = False
) -> tuple[str, str]:
    env = {"HP_SHARED_KEY": "key", "NC_INSTANCE_URL": "http://cloud", "HP_TRUSTED_PROXY_IPS": trusted}
    (finding,) = address_findings(seen, forged, load(env).proxies, direct=direct, invented=INVENTED)
    return finding.state, finding.fix


def test_a_trusted_proxy_that_names_its_clients_is_in_order() -> None:
    assert judged(SEEN, trusted="172.18.0.0/16") == ("ok", "")


def test_a_proxy_that_nobody_told_us_of_is_named_for_the_variable() -> None:
    state, fix = judged(SEEN)
    assert state == "warning"
    assert "HP_TRUSTED_PROXY_IPS=172.18.0.5" in fix


def test_a_proxy_beside_the_trusted_ones_is_a_fault() -> None:
    state, fix = judged(replace(SEEN, neighbour=False), trusted="10.0.0.0/8")
    assert state == "failed"
    assert "HP_TRUSTED_PROXY_IPS=172.18.0.5" in fix


def test_a_public_proxy_without_trust_is_a_fault() -> None:
    assert judged(replace(SEEN, peer="8.8.4.4", neighbour=False))[0] == "failed"


@pytest.mark.parametrize("told", [f"{INVENTED}, 192.0.2.1", "192.0.2.1"])
def test_a_proxy_that_adds_or_replaces_the_address_cannot_be_fooled(told: str) -> None:
    assert judged(SEEN, replace(SEEN, told=told), trusted="172.18.0.5")[0] == "ok"


@pytest.mark.parametrize("told", [INVENTED, f"10.0.0.1, {INVENTED}"])
def test_a_proxy_that_passes_on_what_clients_say_is_a_fault(told: str) -> None:
    assert judged(SEEN, replace(SEEN, told=told), trusted="172.18.0.5")[0] == "failed"


def test_without_a_proxy_no_header_is_missed() -> None:
    assert judged(replace(SEEN, told=""), direct=True)[0] == "ok"
    assert judged(replace(SEEN, told=""))[0] == "failed"


def test_host_and_scheme_are_those_of_the_url() -> None:
    assert name_findings(SEEN, "Cloud.example.com", "https")[0].state == "ok"
    assert "Host" in name_findings(replace(SEEN, host="harp"), "cloud.example.com", "https")[0].fix
    assert "X-Forwarded-Proto" in name_findings(replace(SEEN, proto="http"), "cloud.example.com", "https")[0].fix
