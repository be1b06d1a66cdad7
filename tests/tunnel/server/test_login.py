"""Logins of scripted clients (F 5.1, F 6.2)."""

from __future__ import annotations

import pytest
from structlog.typing import EventDict

from harp.wire import frp
from harp.wire.frp import ClientSpec, LoginResp, Ping, Pong, ReqWorkConn
from tests.fakes.waiting import until
from tests.tunnel.peer import Messages, good_login
from tests.tunnel.server.world import WRONG_KEY, TunnelWorld, told


@pytest.mark.parametrize(("mux", "version"), [(True, 1), (True, 2), (False, 1), (False, 2)])
async def test_a_client_logs_in_and_is_asked_for_its_pool(world: TunnelWorld, mux: bool, version: int) -> None:
    client = world.client(mux=mux, version=version)
    await client.login(pool_count=2)
    assert len(client.run_id) == 16
    assert set(client.run_id) <= set("0123456789abcdef")
    (facts,) = world.server.facts()
    assert (facts.address, facts.version, facts.system) == ("127.0.0.1", "0.61.1", "linux/amd64")
    assert (facts.mux, facts.wire) == (mux, version)
    assert world.asked == [("127.0.0.1", "the key")]


async def test_the_round_trip_of_a_tunnel_is_known_at_once(world: TunnelWorld) -> None:
    await world.client().login()
    await until(lambda: world.server.facts()[0].round_trip is not None)


@pytest.mark.parametrize(("asked", "given"), [(-1, 0), (0, 0), (5, 5), (1_000_000, 5)])
async def test_the_pool_a_client_asks_for_has_a_limit(world: TunnelWorld, asked: int, given: int) -> None:
    client = world.client()
    assert (await client.try_login(good_login(pool_count=asked))).error == ""
    client.control.send(Ping())
    for _ in range(given):
        await client.control.next(ReqWorkConn)
    await client.control.next(Pong)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"metas": {"token": "wrong"}}, WRONG_KEY),
        ({"metas": {}}, WRONG_KEY),
        ({"metas": {}, "client_spec": ClientSpec("ssh-tunnel", always_auth_pass=True)}, WRONG_KEY),
        ({"metas": {"token": "from a banned address"}}, "banned"),
        ({"privilege_key": "0" * 32}, "token in login doesn't match token from configuration"),
        ({"timestamp": 1}, "token in login doesn't match token from configuration"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
async def test_a_login_is_refused_in_words_and_the_stream_closed(
    world: TunnelWorld, version: int, fields: dict[str, object], error: str
) -> None:
    client = world.client(version=version)
    response = await client.try_login(good_login(**fields))
    assert (response.error, response.run_id) == (error, "")
    await client.control.end.until(event="end")
    assert world.server.facts() == []


async def test_the_log_tells_a_wrong_token_in_plain_words(world: TunnelWorld, logged: list[EventDict]) -> None:
    await world.client().try_login(good_login(metas={"token": "wrong"}))
    assert told(logged)[-1]["reason"] == "metadatas.token is not the shared key"


async def test_a_new_client_gets_a_run_id_of_ours_whatever_it_brings(world: TunnelWorld) -> None:
    for brought in ("0123456789abcdef", "x" * 65, "../\n"):
        client = world.client()
        await client.login(run_id=brought)
        assert client.run_id != brought
        assert len(client.run_id) == 16


async def test_a_client_that_comes_back_replaces_itself_and_has_its_port_at_once(world: TunnelWorld) -> None:
    before = world.client()
    await before.offer()
    again = world.client()
    await again.login(run_id=before.run_id)
    assert again.run_id == before.run_id
    assert world.ports.get(23001) is None
    assert (await again.claim()).error == ""
    assert before.session is not None
    await before.session.wait_closed()
    assert len(world.server.facts()) == 1


async def test_a_stranger_cannot_replace_a_tunnel_whose_run_id_he_knows(world: TunnelWorld) -> None:
    owner = world.client()
    await owner.offer()
    response = await world.client().try_login(good_login(run_id=owner.run_id, metas={"token": "wrong"}))
    assert response.error == WRONG_KEY
    assert world.ports.get(23001) is not None


async def test_version_2_needs_a_hello_before_the_login(world: TunnelWorld) -> None:
    client = world.client(version=2)
    await client.connect()
    client.control.send_raw(frp.MAGIC + frp.encode(good_login(), 2))
    assert (await client.control.next(LoginResp)).error == "missing v2 crypto negotiation"


async def test_a_hello_without_common_ground_is_answered_with_the_reason(world: TunnelWorld) -> None:
    client = world.client(version=2)
    await client.connect()
    hello = frp.client_hello(bytes(32), tls=False, mux=True).replace(b"aes-256-gcm", b"rot13")
    client.control.send_raw(frp.MAGIC + frp.frame(frp.FrameType.CLIENT_HELLO, hello) + frp.encode(good_login(), 2))
    answer = await client.control.next(frp.HelloFrame)
    assert frp.check_server_hello(answer.payload) == "no supported crypto algorithm"
    await client.control.end.until(event="end")


async def test_one_connection_logs_in_once(world: TunnelWorld) -> None:
    client = world.client()
    await client.login()
    second = Messages(await client.stream(), 1)
    second.send(good_login())
    await second.end.until(event="end")
    assert not second.end.received
    assert len(world.server.facts()) == 1
