"""Where an ExApp may be reached: nobody who writes a record gets to an engine, to HaRP or to a stranger on loopback."""

from __future__ import annotations

import pytest

from harp.policy.exapp_target import ExAppTargets, Reach, exapp_targets_from, holder_objection, is_loopback
from harp.settings import load

ENV = {"HP_SHARED_KEY": "key", "NC_INSTANCE_URL": "http://cloud", "HP_DOCKER_HOST": "tcp://docker-proxy:2375"}
DEFAULT = exapp_targets_from(load(ENV))
LOOPBACK = ["127.0.0.1", "localhost", "LOCALHOST.", "::1", "[::1]", "127.8.9.1", "0.0.0.0", "::", "::ffff:127.0.0.1"]


@pytest.mark.parametrize("host", LOOPBACK)
def test_every_spelling_of_loopback_means_the_tunnel_of_its_port(host: str) -> None:
    assert is_loopback(host)
    assert DEFAULT.objection(host, 23001) is None
    assert DEFAULT.reach(host, 23001) is Reach.TUNNEL


@pytest.mark.parametrize("host", LOOPBACK)
@pytest.mark.parametrize("port", [24000, 24001, 24099])
def test_an_engine_port_is_never_an_exapp(host: str, port: int) -> None:
    everything_open = exapp_targets_from(load({**ENV, "HP_LOCAL_EXAPPS": "1-65535"}))
    for targets in (DEFAULT, everything_open):
        assert targets.objection(host, port) == f"port {port} is an engine's, not an ExApp's"
        assert targets.address_objection("127.0.0.1", port) is not None


def test_an_engine_port_of_the_admins_choice_is_never_an_exapp() -> None:
    targets = exapp_targets_from(load({**ENV, "HP_DOCKER_ENGINE_PORTS": "23900-23910"}))
    assert targets.objection("127.0.0.1", 23900) == "port 23900 is an engine's, not an ExApp's"
    assert targets.objection("127.0.0.1", 24001) == "port 24001 is an engine's, not an ExApp's"


@pytest.mark.parametrize("host", LOOPBACK)
@pytest.mark.parametrize("port", [8780, 8781, 8782, 8200])
def test_a_listener_of_our_own_is_never_an_exapp(host: str, port: int) -> None:
    assert DEFAULT.objection(host, port) == f"port {port} is one of HaRP's own listeners"


def test_the_tcp_port_of_the_engine_is_never_an_exapp_on_whatever_host() -> None:
    for host in ("docker-proxy", "10.0.0.9", "127.0.0.1"):
        assert DEFAULT.objection(host, 2375) == "port 2375 is the Docker engine's (HP_DOCKER_HOST)"


def test_an_exapp_installed_by_hand_is_reached_on_loopback_outside_of_appapis_ports() -> None:
    assert DEFAULT.objection("127.0.0.1", 9030) is None
    assert DEFAULT.reach("127.0.0.1", 9030) is Reach.ADDRESS
    assert DEFAULT.address_objection("127.0.0.1", 9030) is None


def test_the_admin_opens_ports_of_loopback_or_closes_them() -> None:
    closed = exapp_targets_from(load({**ENV, "HP_LOCAL_EXAPPS": "none"}))
    assert closed.objection("127.0.0.1", 9030) == "HP_LOCAL_EXAPPS does not allow ExApps on port 9030 of loopback"
    opened = exapp_targets_from(load({**ENV, "HP_LOCAL_EXAPPS": "9030,23007"}))
    assert opened.reach("127.0.0.1", 23007) is Reach.TUNNEL_OR_LOOPBACK
    assert opened.reach("127.0.0.1", 23008) is Reach.TUNNEL


def test_a_name_that_resolves_to_loopback_gets_no_further_than_the_address() -> None:
    assert DEFAULT.objection("hello", 23001) is None
    assert DEFAULT.address_objection("127.0.0.1", 23001) is not None
    assert DEFAULT.address_objection("127.0.0.1", 8200) == "port 8200 is one of HaRP's own listeners"


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1.", "0X7F.1"])
def test_a_number_that_only_the_c_library_takes_for_an_address_is_refused(host: str) -> None:
    assert DEFAULT.objection(host, 9030) == "its host is a number, but not an address in the usual form"


@pytest.mark.parametrize("host", ["hello", "10.0.0.9", "2001:db8::7", "app-1", "1app.example", "127.0.0.1.example"])
def test_other_hosts_are_taken_as_they_are(host: str) -> None:
    assert DEFAULT.objection(host, 24001) is None
    assert DEFAULT.reach(host, 23001) is Reach.ADDRESS
    assert not is_loopback(host)


def test_without_settings_nothing_on_loopback_is_an_exapp() -> None:
    assert ExAppTargets().address_objection("127.0.0.1", 9030) is not None


def test_a_tunnel_with_another_exapps_name_does_not_answer_for_a_port() -> None:
    held = holder_objection(23055, "portA", "portb", strict=False, other_exapp=True)
    assert held == "port 23055 is held by the tunnel of portA"
    assert holder_objection(23055, "portB", "portb", strict=True, other_exapp=True) is None


def test_a_tunnel_whose_name_is_no_exapps_is_tolerated_unless_claims_are_strict() -> None:
    assert holder_objection(23055, "my laptop", "portb", strict=False, other_exapp=False) is None
    assert holder_objection(23055, "my laptop", "portb", strict=True, other_exapp=False) is not None
