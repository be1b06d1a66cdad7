"""Replicas find each other in a real Redis, and whatever happens to it costs them nothing but that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from msgspec.structs import replace

from harp.cluster.roster import NotAdmitted, Peer, Roster, fingerprint
from harp.logs import RareWarnings
from harp.settings import Address, ClusterSettings
from harp.settings.cluster import store
from tests.cluster.redis_server import PEER, RedisServer
from tests.fakes.waiting import until
from tests.live.peers import path_of
from tests.live.processes import Process, free_port

pytestmark = pytest.mark.waits

CERTIFICATE = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
PORT = 8782


class Replica:
    """What a roster is for: a member that wants to know the others."""

    def __init__(self, url: str, name: str, directory: Path, **changes: object) -> None:
        loop = asyncio.get_running_loop()
        settings = ClusterSettings(store(url), name, Address(f"{name}.example", PORT), "", PORT, "harp:")
        self.directory = directory
        self.changes = 0
        self.roster = Roster(replace(settings, **changes), self, RareWarnings(loop.time))
        self.running: asyncio.Task[None] | None = None

    def peers_changed(self) -> None:
        """As RosterOwner."""
        self.changes += 1

    @property
    def known(self) -> list[str]:
        return sorted(self.roster.peers)

    async def start(self) -> None:
        await self.roster.claim_ca(self.directory)
        if not fingerprint(self.directory / "ca.crt"):
            make_ca(self.directory, self.roster.name)
        await self.roster.join(self.directory)
        self.running = asyncio.get_running_loop().create_task(self.roster.run())

    async def die(self) -> None:
        """As with kill -9: nobody is told."""
        if self.running is not None:
            self.running.cancel()
            with suppress(asyncio.CancelledError):
                await self.running
            self.running = None

    async def stop(self) -> None:
        await self.die()
        await self.roster.close()


def make_ca(directory: Path, name: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "ca.crt").write_text(CERTIFICATE.format(name * 4))


class RosterReplicas:
    """Replicas of a test, which all end with it."""

    def __init__(self, redis: RedisServer, directory: Path) -> None:
        self.redis = redis
        self.directory = directory
        self.all: list[Replica] = []

    def new(self, name: str, directory: Path | None = None, url: str = "", **changes: object) -> Replica:
        replica = Replica(url or self.redis.url, name, directory or self.directory, **changes)
        self.all.append(replica)
        return replica

    async def start(self, *names: str) -> list[Replica]:
        started = [self.new(name) for name in names]
        for replica in started:
            await replica.start()
        await until(lambda: all(len(replica.known) == len(names) - 1 for replica in started))
        return started


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.end()


@pytest.fixture
async def replicas(redis: RedisServer, tmp_path: Path) -> AsyncIterator[RosterReplicas]:
    replicas = RosterReplicas(redis, tmp_path / "frp")
    yield replicas
    for replica in replicas.all:
        await replica.stop()


# Who is there


async def test_replicas_know_each_other_and_not_themselves(replicas: RosterReplicas) -> None:
    one, two, three = await replicas.start("one", "two", "three")
    assert (one.known, two.known, three.known) == (["three", "two"], ["one", "three"], ["one", "two"])
    assert one.roster.peers["two"] == Peer("two", two.roster.boot, "two.example", PORT)
    assert one.roster.problem == ""


async def test_one_that_leaves_is_gone_at_once(replicas: RosterReplicas) -> None:
    one, two = await replicas.start("one", "two")
    await two.stop()
    await until(lambda: one.known == [], seconds=3)
    assert "harp:member:two" not in replicas.redis.tell("KEYS", "*")


async def test_one_that_dies_is_forgotten_after_a_while(replicas: RosterReplicas) -> None:
    one, two = await replicas.start("one", "two")
    await two.die()
    await until(lambda: one.known == [], seconds=40)
    assert replicas.redis.tell("SMEMBERS", "harp:members") == "one"


async def test_harps_with_other_prefixes_have_nothing_to_do_with_each_other(
    replicas: RosterReplicas, tmp_path: Path
) -> None:
    (one,) = await replicas.start("one")
    other = replicas.new("one", tmp_path / "other", prefix="other:")
    await other.start()
    assert (one.known, other.known) == ([], [])


async def test_entries_of_somebody_else_are_left_alone(replicas: RosterReplicas) -> None:
    replicas.redis.tell("SADD", "harp:members", "odd", "odder")
    replicas.redis.tell("SET", "harp:member:odd", "{}")
    replicas.redis.tell("SET", "harp:member:odder", '{"name": "x", "boot": "y", "host": "z", "port": 1}')
    (one,) = await replicas.start("one")
    assert one.known == []
    assert one.roster.problem == ""


async def test_without_an_address_of_its_own_a_replica_is_where_it_listens_or_reaches_the_store(
    replicas: RosterReplicas,
) -> None:
    (one,) = await replicas.start("one")
    listening = replicas.new("listening", address=None, host="192.0.2.7")
    local = replicas.new("local", address=None)
    for replica in (listening, local):
        await replica.start()
    await until(lambda: one.known == ["listening", "local"])
    peers = one.roster.peers
    assert [(peers[name].host, peers[name].port) for name in one.known] == [("192.0.2.7", PORT), ("127.0.0.1", PORT)]


# Names


async def test_a_name_that_is_in_use_is_refused_with_the_way_out(replicas: RosterReplicas) -> None:
    (one,) = await replicas.start("one")
    again = replicas.new("one", address=Address("elsewhere.example", PORT))
    with pytest.raises(NotAdmitted, match=r"the name one is another replica.s, at one.example:8782: .*HP_CLUSTER_NAME"):
        await again.start()
    await again.stop()
    assert one.roster.boot in replicas.redis.tell("GET", "harp:member:one")


async def test_one_that_died_and_starts_again_has_its_name_at_once(replicas: RosterReplicas) -> None:
    address = Address("127.0.0.1", 1)  # where nobody answers
    one, before = replicas.new("one"), replicas.new("two", address=address)
    await one.start()
    await before.start()
    await before.die()
    after = replicas.new("two", address=address)
    async with asyncio.timeout(4):  # less than the lease
        await after.start()
    await until(lambda: "two" in one.known and one.roster.peers["two"].boot == after.roster.boot)


async def test_one_that_died_and_starts_elsewhere_has_its_name_when_the_lease_has_ended(
    replicas: RosterReplicas,
) -> None:
    (before,) = await replicas.start("one")
    await before.die()
    after = replicas.new("one", address=Address("elsewhere.example", PORT))
    await after.start()
    assert after.roster.boot in replicas.redis.tell("GET", "harp:member:one")


# The CA


async def test_two_fresh_replicas_do_not_make_two_cas(replicas: RosterReplicas, tmp_path: Path) -> None:
    """The directories are not shared: the second one is refused, whatever the moment."""
    both = [replicas.new(name, tmp_path / name) for name in ("one", "two")]
    results = await asyncio.gather(*(replica.start() for replica in both), return_exceptions=True)
    (refusal,) = [result for result in results if result is not None]
    assert isinstance(refusal, NotAdmitted)
    assert "contains no CA, and the other replicas have one: mount the directory that all share" in str(refusal)
    assert sorted(path.name for path in tmp_path.glob("*/ca.crt")) == ["ca.crt"]


async def test_fresh_replicas_that_share_a_directory_have_one_ca(replicas: RosterReplicas) -> None:
    both = [replicas.new("one"), replicas.new("two")]
    await asyncio.gather(*(replica.start() for replica in both))
    claimed = replicas.redis.tell("GET", "harp:ca")
    assert claimed == fingerprint(replicas.directory / "ca.crt")


async def test_a_replica_with_another_ca_is_refused_with_the_directory_to_mount(
    replicas: RosterReplicas, tmp_path: Path
) -> None:
    await replicas.start("one")
    make_ca(tmp_path / "other", "other")
    with pytest.raises(NotAdmitted, match=r"our CA of tunnels is not that of the other replicas.*HP_CERTS_DIR"):
        await replicas.new("two", tmp_path / "other").start()


async def test_a_replica_without_a_ca_makes_none_while_the_store_is_away(replicas: RosterReplicas) -> None:
    replicas.redis.kill()
    starting = asyncio.get_running_loop().create_task(replicas.new("one").start())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await asyncio.shield(starting)
    replicas.redis.start()
    await starting
    assert replicas.redis.tell("GET", "harp:ca") == fingerprint(replicas.directory / "ca.crt")


# When the store is away


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_while_the_store_is_away_the_last_copy_holds(replicas: RosterReplicas, how: str) -> None:
    one, two = await replicas.start("one", "two")
    replicas.redis.kill() if how == "killed" else replicas.redis.stop()
    await until(lambda: one.roster.problem and two.roster.problem)
    cause = "Connection refused" if how == "killed" else "no answer within 1 s"
    assert one.roster.problem == f"the store {replicas.redis.url}?db=0 cannot be used: {cause}"
    assert (one.known, two.known) == (["two"], ["one"])
    replicas.redis.start() if how == "killed" else replicas.redis.go_on()
    three = replicas.new("three")
    await three.start()
    await until(lambda: one.known == ["three", "two"] and two.known == ["one", "three"])
    assert one.roster.problem == two.roster.problem == ""


async def test_a_store_that_has_lost_its_data_gets_it_again_and_nobody_is_missed_meanwhile(
    replicas: RosterReplicas,
) -> None:
    one, two = await replicas.start("one", "two")
    before = one.changes, two.changes
    for _ in range(3):
        replicas.redis.tell("FLUSHALL")
        await until(lambda: len(replicas.redis.tell("SMEMBERS", "harp:members").split()) == 2, pause=0.05)
    assert replicas.redis.tell("GET", "harp:ca") == fingerprint(replicas.directory / "ca.crt")
    assert (one.changes, two.changes) == before


async def test_a_replica_starts_while_the_store_is_away_and_is_found_later(replicas: RosterReplicas) -> None:
    make_ca(replicas.directory, "one")
    replicas.redis.kill()
    one, two = replicas.new("one"), replicas.new("two")
    for replica in (one, two):
        await replica.start()
        assert replica.roster.problem
    replicas.redis.start()
    await until(lambda: one.known == ["two"] and two.known == ["one"])


async def test_of_two_with_one_name_that_could_not_be_seen_the_second_is_not_listed(replicas: RosterReplicas) -> None:
    make_ca(replicas.directory, "one")
    replicas.redis.kill()
    first = replicas.new("one")
    second = replicas.new("one", address=Address("elsewhere.example", PORT))
    for replica in (first, second):
        await replica.start()
    replicas.redis.start()
    await until(lambda: first.roster.problem.startswith("the name") or second.roster.problem.startswith("the name"))
    ahead, behind = (first, second) if second.roster.problem.startswith("the name") else (second, first)
    await ahead.stop()
    await until(lambda: behind.roster.problem == "")


# Ways to the store


async def test_over_tcp_a_replica_is_where_it_reaches_the_store_from(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    port = free_port()
    redis = RedisServer(tmp_path_factory.mktemp("tcp"), port=port)
    make_ca(tmp_path, "one")
    one = Replica(f"redis://127.0.0.1:{port}", "one", tmp_path, address=None)
    nowhere = Replica(f"redis://name.invalid:{port}", "two", tmp_path, address=None)
    try:
        await one.start()
        assert '"host":"127.0.0.1"' in redis.tell("GET", "harp:member:one")
        await nowhere.start()
        assert "cannot be used: our address on the way to it is not known: " in nowhere.roster.problem
    finally:
        await one.stop()
        await nowhere.stop()
        redis.end()


async def test_a_store_is_reached_over_tls_by_its_ca(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    directory, port = tmp_path_factory.mktemp("tls"), free_port()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(directory / "both.pem")
    files = ("--tls-cert-file", "both.pem", "--tls-key-file", "both.pem", "--tls-ca-cert-file", "ca.pem")
    redis = RedisServer(directory, "--tls-port", str(port), "--tls-auth-clients", "no", *files)
    make_ca(tmp_path, "one")
    url = f"rediss://127.0.0.1:{port}"
    one = Replica(f"{url}?ssl_ca_certs={directory / 'ca.pem'}", "one", tmp_path)
    stranger = Replica(url, "two", tmp_path)
    try:
        await one.start()
        assert one.roster.problem == ""
        await stranger.start()
        assert "the certificate is not trusted" in stranger.roster.problem
    finally:
        await one.stop()
        await stranger.stop()
        redis.end()


async def test_a_store_is_found_through_the_sentinel_that_answers(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    directory, port, asked, away = tmp_path_factory.mktemp("sentinel"), free_port(), free_port(), free_port()
    redis = RedisServer(directory, port=port)
    file = directory / "sentinel.conf"
    file.write_text(f"port {asked}\nsentinel monitor main 127.0.0.1 {port} 1\n")
    argv = [path_of(PEER, "redis-server"), str(file), "--sentinel"]
    make_ca(tmp_path, "one")
    url = f"redis+sentinel://127.0.0.1:{away},127.0.0.1:{asked}"
    one, lost = Replica(f"{url}/main", "one", tmp_path), Replica(f"{url}/other", "two", tmp_path)
    try:
        with Process(argv, directory / "sentinel.log") as sentinel:
            sentinel.until_listening(asked)
            await one.start()
            assert one.roster.problem == ""
            assert redis.tell("SMEMBERS", "harp:members") == "one"
            await lost.start()
            assert "no sentinel knows a master that is called other" in lost.roster.problem
    finally:
        await one.stop()
        await lost.stop()
        redis.end()


async def test_after_a_failover_the_store_is_the_one_that_sentinels_name_now(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    directory, asked = tmp_path_factory.mktemp("failover"), free_port()
    first_port, second_port = free_port(), free_port()
    first = RedisServer(tmp_path_factory.mktemp("first"), port=first_port)
    second = RedisServer(tmp_path_factory.mktemp("second"), "--replicaof", f"127.0.0.1 {first_port}", port=second_port)
    file = directory / "sentinel.conf"
    lines = ("down-after-milliseconds main 500", "failover-timeout main 3000")
    text = "".join(f"sentinel {line}\n" for line in (f"monitor main 127.0.0.1 {first_port} 1", *lines))
    file.write_text(f"port {asked}\n{text}")
    one = Replica(f"redis+sentinel://127.0.0.1:{asked}/main", "one", tmp_path)
    try:
        await until(lambda: "master_link_status:up" in second.tell("INFO", "replication"), pause=0.05)
        with Process([path_of(PEER, "redis-server"), str(file), "--sentinel"], directory / "sentinel.log") as sentinel:
            sentinel.until(lambda: "+slave" in sentinel.text(), "the second one")
            await one.start()
            assert first.tell("SMEMBERS", "harp:members") == "one"
            first.kill()
            await until(lambda: one.roster.problem)
            await until(lambda: one.roster.problem == "")
            await until(lambda: second.tell("PTTL", "harp:member:one")[0] != "-", pause=0.05)
            assert "role:master" in second.tell("INFO", "replication")
    finally:
        await one.stop()
        first.end()
        second.end()


# Passwords and rights

RIGHTS = "~harp:* &harp:* +get +set +del +pttl +sadd +srem +smembers +publish +subscribe +ping"


async def test_these_rights_are_enough(replicas: RosterReplicas) -> None:
    replicas.redis.tell("ACL", "SETUSER", "harp", "on", ">open:sesame", "resetchannels", *RIGHTS.split())
    replicas.redis.tell("ACL", "SETUSER", "default", "off")
    url = f"unix://harp:open%3Asesame@{replicas.redis.socket}"
    one, two = replicas.new("one", url=url), replicas.new("two", url=url)
    for replica in (one, two):
        await replica.start()
    await until(lambda: one.known == ["two"] and two.known == ["one"])
    await two.stop()
    await until(lambda: one.known == [], seconds=4)
    assert one.roster.problem == ""


async def test_a_wrong_password_is_a_problem_that_does_not_repeat_it(replicas: RosterReplicas) -> None:
    make_ca(replicas.directory, "one")
    replicas.redis.tell("CONFIG", "SET", "requirepass", "open sesame")
    one = replicas.new("one", url=f"unix://:wrongpass@{replicas.redis.socket}")
    await one.start()
    assert "invalid username-password pair" in one.roster.problem
    assert "wrongpass" not in one.roster.problem
