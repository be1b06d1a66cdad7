"""Claims of ports and names (F 5.3, F 5.4)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harp.wire import frp
from harp.wire.frp import CloseProxy, Ping, Pong, ReqWorkConn
from tests.fakes.clock import Clock
from tests.fakes.waiting import until
from tests.tunnel.server.world import TunnelWorld, beside


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"proxy_type": "zzz"}, "unknown proxy type: zzz"),
        ({"proxy_type": "http"}, "type [http] not supported when vhost http port is not set"),
        ({"proxy_type": "https"}, "type [https] not supported when vhost https port is not set"),
        (
            {"proxy_type": "tcpmux"},
            "tcpmux with multiplexer httpconnect not supported because this feature is not enabled in server",
        ),
        ({"proxy_type": "udp"}, "type [udp] not supported by this server"),
        (
            {"use_encryption": True},
            "transport.useEncryption is not supported by this server, remove it from the proxy's configuration",
        ),
        (
            {"use_compression": True},
            "transport.useCompression is not supported by this server, remove it from the proxy's configuration",
        ),
        (
            {"group": "g"},
            "loadBalancer.group is not supported by this server, remove it from the proxy's configuration",
        ),
        (
            {"bandwidth_limit": "1MB", "bandwidth_limit_mode": "server"},
            "transport.bandwidthLimitMode = server is not supported by this server, remove it from the proxy's "
            "configuration",
        ),
        ({"proxy_name": ""}, "a proxy name needs 1 to 255 characters"),
        ({"proxy_name": "x" * 256}, "a proxy name needs 1 to 255 characters"),
        ({"remote_port": 0}, "no available port"),
        ({"remote_port": 22999}, "port not allowed"),
        ({"remote_port": 24000}, "port not allowed"),
        ({"remote_port": 24100}, "port not allowed"),
        ({"remote_port": -1}, "port not allowed"),
        ({"remote_port": 1 << 40}, "port not allowed"),
    ],
)
async def test_a_claim_is_refused_in_words_and_a_better_one_granted(
    world: TunnelWorld, fields: dict[str, Any], error: str
) -> None:
    client = world.client()
    await client.login()
    refused = await client.claim(**fields)
    assert refused == frp.NewProxyResp(str(fields.get("proxy_name", "my_app")), error=error)
    assert (await client.claim()) == frp.NewProxyResp("my_app", remote_addr=":23001")


@pytest.mark.parametrize("port", [23000, 23999, 24001, 24099])
async def test_exapps_and_engines_have_their_ports(world: TunnelWorld, port: int) -> None:
    client = world.client()
    await client.login()
    assert (await client.claim("x", port)).error == ""
    assert world.server.facts()[0].proxies == (("x", port),)


async def test_the_same_claim_again_is_granted_again(world: TunnelWorld) -> None:
    client = world.client()
    await client.offer()
    assert (await client.claim()).error == ""
    client.control.send(Ping())
    await client.control.next(Pong)


async def test_a_tunnel_has_one_claim_and_may_give_it_back(world: TunnelWorld) -> None:
    client = world.client()
    await client.offer()
    assert (await client.claim("other", 23002)).error == "exceed the max_ports_per_client"
    assert (await client.claim("my_app", 23002)).error == "exceed the max_ports_per_client"
    client.control.send(CloseProxy("unknown"))
    client.control.send(CloseProxy("my_app"))
    assert (await client.claim("other", 23001)).error == ""
    assert world.server.facts()[0].proxies == (("other", 23001),)


async def test_a_claim_is_offered_when_the_client_has_shown_that_it_knows(world: TunnelWorld) -> None:
    client = world.client()
    await client.login()
    await client.work()  # asked for before the claim
    await client.claim()
    client.control.send(Ping())
    await client.control.next(ReqWorkConn)
    await client.control.next(Pong)
    assert world.ports.get(23001) is None
    await client.work()
    await until(lambda: world.ports.get(23001))


async def test_a_claim_is_offered_after_a_second_without_that(world: TunnelWorld, clock: Clock) -> None:
    client = world.client()
    await client.login()
    await client.claim()
    assert world.ports.get(23001) is None
    clock.move(1)
    assert world.ports.get(23001) is not None


@pytest.mark.parametrize(
    ("name", "port", "error"), [("my_app", 23002, "proxy [my_app] already exists"), ("x", 23001, "port already used")]
)
async def test_what_a_living_client_holds_is_refused_to_another(
    world: TunnelWorld, name: str, port: int, error: str
) -> None:
    await world.client().offer()
    other = world.client()
    await other.login()
    assert (await other.claim(name, port)).error == error
    assert world.ports.get(23001) is not None


async def answered(answer: asyncio.Task[Any], clock: Clock) -> None:
    """Let time pass until there is an answer."""

    def there() -> bool:
        clock.move(0.25)
        return answer.done()

    await until(there)


async def test_a_dead_holder_is_evicted_and_the_claim_granted(world: TunnelWorld, clock: Clock) -> None:
    dead = world.client()
    await dead.offer()
    dead.freeze()
    other = world.client()
    await other.login()
    answer = beside(other.claim())
    await answered(answer, clock)
    assert answer.result().error == ""
    assert clock.now < 1005
    assert [facts.proxies for facts in world.server.facts()] == [(("my_app", 23001),)]


async def test_name_and_port_may_be_held_by_two_dead_clients(world: TunnelWorld, clock: Clock) -> None:
    for name, port in (("my_app", 23005), ("x", 23001)):
        dead = world.client()
        await dead.offer(name, port)
        dead.freeze()
    other = world.client()
    await other.login()
    answer = beside(other.claim())
    await answered(answer, clock)
    assert len(world.server.facts()) == 1


async def test_everything_is_free_when_the_client_is_gone(world: TunnelWorld) -> None:
    client = world.client()
    await client.offer()
    await until(lambda: world.ports.get(23001))
    client.hang_up()
    await until(lambda: not world.server.facts())
    assert world.ports.get(23001) is None
    assert world.ports.seen(23001)
    await world.client().offer()


async def test_the_end_of_the_control_stream_ends_the_tunnel(world: TunnelWorld) -> None:
    client = world.client()
    await client.offer()
    client.control.end.transport.close()
    assert client.session is not None
    await client.session.wait_closed()
    assert world.server.facts() == []
