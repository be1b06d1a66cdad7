"""Tunnels of several Nextclouds at one server: names, ports and run ids mean nothing outside their group."""

from __future__ import annotations

from harp.settings import Settings
from tests.fakes.waiting import until
from tests.tunnel.peer import good_login
from tests.tunnel.server.world import OTHER_KEY, TunnelWorld

OTHER = {"token": OTHER_KEY}


async def test_two_nextclouds_may_have_the_same_name_and_port(world: TunnelWorld) -> None:
    one, other = world.client(), world.client()
    await one.login()
    await other.login(metas=OTHER)
    assert (await one.claim("hello", 23001)).error == ""
    assert (await other.claim("hello", 23001)).error == ""
    assert [facts.proxies for facts in world.group.facts()] == [(("hello", 23001),)]
    assert [facts.proxies for facts in world.other.facts()] == [(("hello", 23001),)]


async def test_a_claim_is_offered_in_its_own_port_table_alone(world: TunnelWorld) -> None:
    one = world.client()
    await one.offer()
    await until(lambda: world.ports.get(23001) is not None)
    assert world.other_ports.get(23001) is None


async def test_a_run_id_of_another_nextcloud_replaces_nothing(world: TunnelWorld) -> None:
    owner, stranger = world.client(), world.client()
    await owner.offer()
    await stranger.login(metas=OTHER, run_id=owner.run_id)
    assert stranger.run_id != owner.run_id
    await until(lambda: world.ports.get(23001) is not None)
    assert len(world.server.facts()) == 2


async def test_beyond_the_limit_of_a_group_a_login_is_refused_and_the_other_group_goes_on(world: TunnelWorld) -> None:
    world.other.limit = 1
    first = world.client()
    await first.login(metas=OTHER)
    refused = await world.client().try_login(good_login(metas=OTHER))
    assert refused.error == "1 tunnels are connected, which is the limit of this Nextcloud"
    await world.client().login()
    await world.client().login(metas=OTHER, run_id=first.run_id)  # who comes back takes its own place


async def test_the_tunnels_of_one_nextcloud_end_alone(world: TunnelWorld) -> None:
    one, other = world.client(), world.client()
    await one.offer()
    await other.login(metas=OTHER)
    await world.server.end_group(world.other, "it is served no more")
    assert world.other.facts() == []
    await until(lambda: world.ports.get(23001) is not None)


async def test_one_of_several_nextclouds_has_half_of_the_memory_for_windows(
    world: TunnelWorld, settings: Settings
) -> None:
    world.other.limit = 5
    await world.client().login()
    await world.client().login(metas=OTHER)
    assert world.group.budget is None
    assert world.other.budget is not None
    assert world.other.budget.total == settings.tunnel.memory // 2
