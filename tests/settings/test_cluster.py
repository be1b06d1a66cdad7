"""Where replicas find each other, and what each is called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harp.settings import Address, ClusterSettings, StoreSettings
from tests.settings.reading import problem, reading, settings, warning

REDIS = "redis://redis:6379"


def replica(**variables: str) -> ClusterSettings:
    found = settings(HP_CLUSTER_URL=variables.pop("HP_CLUSTER_URL", REDIS), **variables).cluster
    assert found is not None
    return found


def of(url: str) -> StoreSettings:
    return replica(HP_CLUSTER_URL=url).store


def test_without_a_store_there_are_no_replicas() -> None:
    assert settings().cluster is None
    assert "no effect without HP_CLUSTER_URL" in warning(HP_CLUSTER_NAME="one")


def test_a_replica_has_the_name_of_its_host_and_the_port_of_its_tunnels() -> None:
    found = replica()
    assert (found.name, found.address, found.host, found.port) == (os.uname().nodename, None, "", 8782)
    assert found.prefix == "harp:"
    listening = replica(HP_FRP_ADDRESS="192.0.2.1:7000")
    assert (listening.host, listening.port) == ("192.0.2.1", 7000)


@pytest.mark.parametrize(
    ("url", "places"),
    [
        ("redis://redis", (("redis", 6379),)),
        ("redis://10.0.0.1:7000/", (("10.0.0.1", 7000),)),
        ("valkey://[2001:db8::1]:7000", (("2001:db8::1", 7000),)),
        ("redis+sentinel://a,b:7000,[::1]/main", (("a", 26379), ("b", 7000), ("::1", 26379))),
    ],
)
def test_stores_and_sentinels_are_hosts_with_ports(url: str, places: tuple[tuple[str, int], ...]) -> None:
    assert of(url).places == places


def test_a_url_says_the_rest_as_well() -> None:
    found = of("rediss://harp:a%2Fb%40c@redis/3?ssl_ca_certs=/certs/redis.pem")
    assert (found.user, found.password, found.database, found.tls) == ("harp", "a/b@c", 3, True)
    assert found.ca_certs == Path("/certs/redis.pem")
    assert of("redis://:p@ss@redis").password == "p@ss"
    found = of("valkey+sentinel://:one@a,b/main/2?sentinel_username=u&sentinel_password=two")
    assert (found.service, found.database, found.password, found.tls) == ("main", 2, "one", False)
    assert (found.sentinel_user, found.sentinel_password) == ("u", "two")
    found = of("unix://:one@/run/redis/redis.sock?db=1")
    assert (found.path, found.database, found.password, found.places) == ("/run/redis/redis.sock", 1, "one", ())


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret-1@redis", "redis://redis:6379/0"),
        ("rediss://harp:secret-1@[::1]:1/3", "rediss://harp@[::1]:1/3"),
        ("unix://:secret-1@/run/r.sock", "unix:///run/r.sock?db=0"),
        ("redis+sentinel://a,b/main?sentinel_password=secret-1", "redis+sentinel://a:26379,b:26379/main/0"),
    ],
)
def test_a_store_is_shown_without_passwords(url: str, shown: str) -> None:
    found = reading(HP_CLUSTER_URL=url)
    assert found.settings.cluster is not None
    assert str(found.settings.cluster.store) == shown
    assert [value.text for value in found.values if value.name == "HP_CLUSTER_URL"] == [shown]
    assert "secret-1" not in repr(found)
    assert "secret-1" in found.settings.secrets


@pytest.mark.parametrize(
    ("url", "fix"),
    [
        ("redis", "is not the URL of a store; write such as redis://redis:6379"),
        ("unix://redis.sock", "is not the URL of a store"),
        ("http://redis:6379", '"http" is not a kind of store'),
        ("redis://", "is not the URL of a store"),
        ("redis://:secret-1@redis:port", "escape / ? # @ in passwords"),
        ("redis://:secret/1@redis", "escape / ? # @ in passwords"),
        ("redis://:secret?1@redis", "escape / ? # @ in passwords"),
        ("redis://one,two", "redis+sentinel://"),
        ("redis+sentinel://one,two", "names no service"),
        ("redis://redis/zero", '"zero" is not the number of a database'),
        ("redis://redis?timeout=3", '"timeout" is not supported'),
        ("redis://secret-1@redis", "a user name without a password"),
    ],
)
def test_a_url_that_cannot_be_used_is_a_problem_that_repeats_no_password(url: str, fix: str) -> None:
    text = problem(HP_CLUSTER_URL=url)
    assert text.startswith("HP_CLUSTER_URL: ")
    assert fix in text
    assert "secret" not in text


def test_the_url_may_stand_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("redis://:secret-1@redis\n")
    found = settings(HP_CLUSTER_URL_FILE=str(path)).cluster
    assert found is not None
    assert found.store.password == "secret-1"
    assert "HP_CLUSTER_URL_FILE is set as well" in problem(HP_CLUSTER_URL=REDIS, HP_CLUSTER_URL_FILE=str(path))
    path.write_text("\n")
    assert "is empty" in problem(HP_CLUSTER_URL_FILE=str(path))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("harp-1", Address("harp-1", 8782)),
        ("10.0.0.1:7000", Address("10.0.0.1", 7000)),
        ("2001:db8::1", Address("2001:db8::1", 8782)),
        ("[2001:db8::1]", Address("2001:db8::1", 8782)),
        ("[2001:db8::1]:7000", Address("2001:db8::1", 7000)),
    ],
)
def test_an_address_for_others_is_a_host_perhaps_with_a_port(text: str, address: Address) -> None:
    assert replica(HP_CLUSTER_ADDRESS=text).address == address


@pytest.mark.parametrize("text", ["0.0.0.0:8782", "/run/harp.sock", "host:0"])
def test_an_address_that_nobody_can_dial_is_a_problem(text: str) -> None:
    assert "cannot be dialled" in problem(HP_CLUSTER_URL=REDIS, HP_CLUSTER_ADDRESS=text)


def test_a_replica_needs_a_port_that_others_can_dial() -> None:
    assert "names no port" in problem(HP_CLUSTER_URL=REDIS, HP_FRP_ADDRESS="/run/frp.sock")
    assert replica(HP_FRP_ADDRESS="/run/frp.sock", HP_CLUSTER_ADDRESS="host:1").address == Address("host", 1)


@pytest.mark.parametrize("name", ["a b", "-one", "x" * 65])
def test_a_name_is_a_short_word(name: str) -> None:
    assert "is not a replica's name" in problem(HP_CLUSTER_URL=REDIS, HP_CLUSTER_NAME=name)


def test_a_prefix_has_no_characters_with_a_meaning() -> None:
    assert replica(HP_CLUSTER_PREFIX="cloud-2:").prefix == "cloud-2:"
    assert "is not a prefix" in problem(HP_CLUSTER_URL=REDIS, HP_CLUSTER_PREFIX="*")


@pytest.mark.parametrize("count", ["2", "auto"])
def test_replicas_have_no_workers(count: str) -> None:
    assert "start more replicas instead" in problem(HP_CLUSTER_URL=REDIS, HP_WORKERS=count)


def test_all_that_is_wrong_is_said_at_once() -> None:
    found = reading(HP_CLUSTER_URL="redis", HP_CLUSTER_NAME="a b", HP_CLUSTER_ADDRESS="host:0", HP_CLUSTER_PREFIX="*")
    assert len(found.problems) == 4
