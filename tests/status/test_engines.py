"""The inventory of engines."""

from __future__ import annotations

from harp.engines.facts import EngineFacts, EngineStatus
from harp.policy.docker_api import ApiRange
from harp.status.engines import TunnelOfEngine, inventory

LOCAL = 24000
FACTS = EngineFacts("29.0.1", ApiRange((1, 44), (1, 52)), podman=False)
TUNNEL = TunnelOfEngine("gpu1", "192.0.2.7", "gpu", since=1000.0, round_trip=None)


def test_the_local_engine_is_there_before_anybody_asked_it() -> None:
    (line,) = inventory(LOCAL, [], [])
    assert (line.port, line.version, line.last_seen, line.tunnel) == (24000, "", None, None)


def test_an_engine_with_a_tunnel_is_there_before_anybody_asked_it() -> None:
    _, line = inventory(LOCAL, [], [(24001, TUNNEL)])
    assert (line.port, line.version, line.tunnel) == (24001, "", TUNNEL)


def test_an_engine_that_has_gone_is_remembered() -> None:
    _, line = inventory(LOCAL, [EngineStatus(24001, "gpu1", FACTS, 2000.0, "no tunnel is connected")], [])
    assert (line.version, line.api, line.last_seen) == ("29.0.1", "1.44 to 1.52", 2000.0)
    assert (line.trouble, line.tunnel) == ("no tunnel is connected", None)


def test_a_port_that_somebody_only_asked_about_is_no_engine() -> None:
    lines = inventory(LOCAL, [EngineStatus(24099, "", None, None, "no tunnel is connected")], [])
    assert [line.port for line in lines] == [LOCAL]
