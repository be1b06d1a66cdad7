"""Limits that hold for several processes together."""

from __future__ import annotations

from msgspec.structs import replace

from harp.settings import Settings, load
from harp.settings.instances import Shares
from harp.settings.sharing import LEAST, share


def settings(**limits: int) -> Settings:
    made = load({"HP_SHARED_KEY": "a key", "NC_INSTANCE_URL": "http://cloud"})
    return replace(made, limits=replace(made.limits, **limits))


def test_each_process_has_an_even_share_rounded_up() -> None:
    shared = share(settings(connections=1000, connections_per_address=100), 3)
    assert (shared.limits.connections, shared.limits.connections_per_address) == (334, 34)
    assert shared.processes == 3


def test_few_connections_may_all_come_to_one_process() -> None:
    shared = share(settings(connections=40, connections_per_address=4), 8)
    assert (shared.limits.connections, shared.limits.connections_per_address) == (LEAST, 4)


def test_shares_of_a_nextcloud_are_divided_and_no_share_stays_none() -> None:
    school = replace(settings(), instance="school", shares=Shares(connections=100, requests=60, tunnels=5))
    clinic = replace(settings(), instance="clinic")
    shared = share(replace(settings(), instances=(school, clinic)), 2)
    assert shared.instances[0].shares == Shares(connections=50, requests=30, tunnels=5)
    assert shared.instances[1].shares == Shares()
    assert shared.instances[1].limits.connections == settings().limits.connections // 2


def test_what_is_of_one_client_or_tunnel_and_what_is_counted_together_stays() -> None:
    before = settings()
    after = share(before, 4)
    same = replace(
        after.limits,
        connections=before.limits.connections,
        connections_per_address=before.limits.connections_per_address,
    )
    assert same == before.limits


def test_alone_a_process_has_all() -> None:
    assert share(settings(), 1) == settings()
