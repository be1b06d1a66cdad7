"""Engines by port: where they are, what they take, and how fast that is known."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from harp.engines.errors import EngineUnreachable
from harp.engines.inventory import REFRESH, EngineInventory
from harp.errors import SettingsError, TunnelAway
from harp.net.dial import Dialer
from harp.net.ports import PortTable, ProtocolFactory
from harp.net.resolve import Resolver
from harp.net.targets import EngineTunnel, Tcp, Unix
from harp.policy.ca_stores import File
from harp.policy.container import Names
from harp.policy.docker_api import ApiRange
from harp.settings import load
from tests.fakes.clock import Clock
from tests.fakes.engine import EngineDialer, FakeEngine
from tests.fakes.waiting import until

ENV = {"HP_SHARED_KEY": "a-shared-key-for-tests", "NC_INSTANCE_URL": "http://cloud"}
NAMES = Names("app")
RANGE = ApiRange((1, 24), (1, 41))


class OfferOfEngine:
    """An offer that nobody connects to."""

    name = "gpu"

    async def connect(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        raise AssertionError


async def learned(engines: EngineInventory, port: int) -> ApiRange:
    """Have the engine of a port ready for calls; what it takes."""
    facts = (await engines.engine(port)).facts
    assert facts is not None
    return facts.api


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def engines(dialer: EngineDialer, clock: Clock) -> AsyncIterator[EngineInventory]:
    engines = EngineInventory(load(ENV), dialer, PortTable(), clock)
    yield engines
    await engines.close()


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("", Unix("/var/run/docker.sock")),
        ("/run/user/1000/docker.sock", Unix("/run/user/1000/docker.sock")),
        ("unix:///run/podman/podman.sock", Unix("/run/podman/podman.sock")),
        ("tcp://dockerd:2375", Tcp("dockerd", 2375)),
        ("tcp://[::1]:2375/", Tcp("::1", 2375)),
    ],
)
async def test_the_engine_of_this_host_is_where_the_variable_says(
    dialer: EngineDialer, host: str, target: Unix | Tcp
) -> None:
    engines = EngineInventory(load({**ENV, "HP_DOCKER_HOST": host}), dialer, PortTable(), lambda: 0.0)
    assert engines.target(24000) == target
    assert engines.target(24001) == EngineTunnel(24001)


async def test_an_engine_over_tls_shows_and_wants_a_certificate(fake: FakeEngine, tmp_path: Path) -> None:
    ca = trustme.CA()
    server_certificate, client_certificate = ca.issue_cert("127.0.0.1"), ca.issue_cert("harp")
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    client_certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    client_certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    server_certificate.configure_cert(context)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.answer)
    clock = Clock()
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        variables = {
            "HP_DOCKER_HOST": f"tcp://127.0.0.1:{runner.addresses[0][1]}",
            "HP_DOCKER_CERT_PATH": str(tmp_path),
        }
        resolver = Resolver(clock)
        dialer = Dialer(PortTable(), resolver, connect=5.0, hold=0.0)
        engines = EngineInventory(load({**ENV, **variables}), dialer, PortTable(), clock)
        assert await learned(engines, 24000) == RANGE
        await engines.close()
        resolver.close()
    finally:
        await runner.cleanup()


def test_certificates_that_are_not_there_are_told_at_the_start(tmp_path: Path, dialer: EngineDialer) -> None:
    variables = {"HP_DOCKER_HOST": "tcp://dockerd:2376", "HP_DOCKER_CERT_PATH": str(tmp_path)}
    with pytest.raises(SettingsError, match=r"HP_DOCKER_CERT_PATH: .* needs ca\.pem, cert\.pem and key\.pem: No such"):
        EngineInventory(load({**ENV, **variables}), dialer, PortTable(), Clock())


@pytest.mark.parametrize(("text", "problem"), [(None, "cannot be read: No such file"), ("{", "data was truncated")])
def test_a_registries_file_that_cannot_be_used_is_told_at_the_start(
    tmp_path: Path, dialer: EngineDialer, text: str | None, problem: str
) -> None:
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=problem):
        EngineInventory(load({**ENV, "HP_REGISTRIES_FILE": str(path)}), dialer, PortTable(), Clock())


async def test_an_engine_is_asked_once_what_it_takes(engines: EngineInventory, fake: FakeEngine) -> None:
    assert engines.api(24000) is None
    assert await learned(engines, 24000) == RANGE
    assert await learned(engines, 24000) == RANGE
    assert engines.api(24000) == RANGE
    assert len(fake.called("GET", "/version")) == 1


async def test_many_who_need_to_know_ask_once(engines: EngineInventory, fake: FakeEngine) -> None:
    answers = await asyncio.gather(*(learned(engines, 24000) for _ in range(20)))
    assert set(answers) == {RANGE}
    assert len(fake.called("GET", "/version")) == 1


async def test_what_is_known_is_refreshed_behind_the_callers_back(
    engines: EngineInventory, fake: FakeEngine, clock: Clock
) -> None:
    await learned(engines, 24000)
    fake.low, fake.high = "1.44", "1.52"
    clock.move(REFRESH)
    assert engines.api(24000) == RANGE
    await until(lambda: engines.api(24000) != RANGE)
    assert engines.api(24000) == ApiRange((1, 44), (1, 52))


async def test_after_a_failure_it_is_asked_before_the_next_call(engines: EngineInventory, fake: FakeEngine) -> None:
    await learned(engines, 24000)
    fake.low, fake.high = "1.44", "1.52"
    engines.doubt(24000)
    assert engines.api(24000) is None
    assert await learned(engines, 24000) == ApiRange((1, 44), (1, 52))


async def test_doubt_about_an_engine_nobody_has_asked_for_is_nothing(engines: EngineInventory) -> None:
    engines.doubt(24050)
    assert engines.statuses() == []


async def test_an_engine_that_is_away_is_told_and_asked_again_the_next_time(
    engines: EngineInventory, dialer: EngineDialer
) -> None:
    dialer.away = TunnelAway("no tunnel is connected for port 24001")
    with pytest.raises(EngineUnreachable, match="no tunnel is connected for port 24001"):
        await learned(engines, 24001)
    assert "no tunnel" in engines.statuses()[0].trouble
    dialer.away = None
    assert await learned(engines, 24001) == RANGE
    status = engines.statuses()[0]
    assert (status.port, status.trouble, status.facts is not None) == (24001, "", True)
    assert status.last_seen is not None


async def test_an_engine_whose_tunnel_went_away_has_to_be_learned_again(dialer: EngineDialer, clock: Clock) -> None:
    table = PortTable()
    engines = EngineInventory(load(ENV), dialer, table, clock)
    tunnel = OfferOfEngine()
    table.claim(24001, tunnel)
    await learned(engines, 24001)
    table.release(24001, tunnel)
    assert engines.api(24001) is None
    table.claim(24001, tunnel)
    assert await learned(engines, 24001) == RANGE
    await engines.close()


async def written(fake: FakeEngine, writes: int) -> None:
    """Wait until so many archives were written."""
    await until(lambda: len(fake.called("PUT", "/containers/nc_app_app/archive")) >= writes)


@pytest.mark.parametrize("away", [False, True], ids=["at once", "when it is back"])
async def test_renewed_certificates_reach_containers(
    dialer: EngineDialer, fake: FakeEngine, clock: Clock, frp_directory: Path, tmp_path: Path, away: bool
) -> None:
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "frp").symlink_to(frp_directory)
    engines = EngineInventory(load({**ENV, "HP_CERTS_DIR": str(tmp_path / "certs")}), dialer, PortTable(), clock)
    container = fake.add("nc_app_app", engines.owner.instance)
    container.files["/certs/frp/ca.crt"] = File("/certs/frp/ca.crt", b"old")
    dialer.away = TunnelAway("away") if away else None
    await engines.renew_tunnel_files()
    if away:
        dialer.away = None
        await learned(engines, 24000)
    await written(fake, 1)
    assert container.files["/certs/frp/ca.crt"].content == b"this is ca.crt"
    await engines.close()


async def test_an_engine_without_minimum_is_taken_for_an_old_one(engines: EngineInventory, fake: FakeEngine) -> None:
    fake.low = ""
    assert await learned(engines, 24000) == RANGE


async def test_the_engine_for_deploying_is_ready_for_calls(engines: EngineInventory, fake: FakeEngine) -> None:
    engine = await engines.engine(24000)
    await engine.exists(NAMES)
    assert fake.calls[-1].version == "1.41"
