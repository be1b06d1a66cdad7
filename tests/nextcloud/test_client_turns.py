"""Connections to Nextcloud: kept, over TLS, in fair turns, and while it hangs."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from harp.nextcloud.breaker import RETRY
from harp.nextcloud.client import NextcloudClient
from harp.policy.decide import CONTROL
from harp.policy.exapp import ExApp, Trouble
from harp.settings import Nextcloud
from tests.fakes.clock import Clock
from tests.fakes.flaky import Flaky
from tests.fakes.nextcloud import FakeNextcloud
from tests.nextcloud.calls import ADDRESS, BASIC, COOKIE, client_of, login, trouble

pytestmark = pytest.mark.hasty

# Time and connections


async def test_a_nextcloud_that_does_not_answer_in_time_is_trouble(nextcloud: FakeNextcloud) -> None:
    client = client_of(nextcloud.url, timeout=0.05)
    nextcloud.open.clear()
    assert (await trouble(client)).reason == "Nextcloud has not answered within 0.05 s"
    await client.close()


async def test_connections_are_kept_and_reused(nextcloud: FakeNextcloud, client: NextcloudClient) -> None:
    for _ in range(3):
        await client.record("hello")
    assert all("connection" not in asked.names() for asked in nextcloud.asked)
    assert len({asked.peer for asked in nextcloud.asked}) == 1


async def test_a_refused_connection_is_trouble_and_only_one_call_at_a_time_tries_again() -> None:
    clock = Clock()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    client = client_of(f"http://127.0.0.1:{port}", clock)
    assert (await trouble(client)).reason == "Nextcloud cannot be reached: Connection refused"
    async with FakeNextcloud(port) as nextcloud:
        assert "refused" in (await trouble(client)).reason  # as remembered
        clock.move(RETRY)
        nextcloud.open.clear()
        trying = asyncio.create_task(client.record("hello"))
        await nextcloud.wait_for(1)
        assert "refused" in (await trouble(client)).reason
        nextcloud.open.set()
        assert isinstance(await trying, ExApp)
        assert isinstance(await client.record("hello"), ExApp)
    await client.close()


async def test_giving_up_the_one_call_that_tries_again_lets_another_try() -> None:
    clock = Clock()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    client = client_of(f"http://127.0.0.1:{port}", clock)
    await trouble(client)
    async with FakeNextcloud(port) as nextcloud:
        clock.move(RETRY)
        nextcloud.open.clear()
        trying = asyncio.create_task(client.record("hello"))
        await nextcloud.wait_for(1)
        trying.cancel()
        await asyncio.wait((trying,))
        nextcloud.open.set()
        assert isinstance(await client.record("hello"), ExApp)
    await client.close()


async def test_a_name_that_cannot_be_one_is_trouble() -> None:
    client = client_of(f"http://{'a' * 64}.example")
    await trouble(client)
    await client.close()


def server_of(host: str, authority: trustme.CA) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(tls)
    return tls


async def test_a_certificate_that_nobody_vouches_for_is_trouble() -> None:
    async with FakeNextcloud(tls=server_of("127.0.0.1", trustme.CA())) as nextcloud:
        client = client_of(nextcloud.url)
        reason = (await trouble(client)).reason
        assert reason.startswith("Nextcloud cannot be reached: the certificate is not trusted: ")
        await client.close()


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """The only CA of this system."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))  # where OpenSSL looks for them
    return authority


async def test_the_system_s_cas_vouch_and_connections_over_tls_are_kept_as_well(authority: trustme.CA) -> None:
    async with FakeNextcloud(tls=server_of("127.0.0.1", authority)) as nextcloud:
        client = client_of(nextcloud.url)
        for _ in range(2):
            assert isinstance(await client.record("hello"), ExApp)
        assert len({asked.peer for asked in nextcloud.asked}) == 1
        await client.close()


async def test_a_certificate_for_another_host_is_trouble(authority: trustme.CA) -> None:
    async with FakeNextcloud(tls=server_of("127.0.0.9", authority)) as nextcloud:
        client = client_of(nextcloud.url)
        assert "the certificate is not trusted: " in (await trouble(client)).reason
        assert nextcloud.asked == []
        await client.close()


async def test_https_to_a_port_that_speaks_http_is_trouble(nextcloud: FakeNextcloud) -> None:
    client = client_of(nextcloud.url.replace("http:", "https:"))
    assert (await trouble(client)).reason.startswith("Nextcloud cannot be reached: TLS failed: ")
    await client.close()


async def test_few_records_are_asked_for_at_once_and_fewer_for_one_client(
    nextcloud: FakeNextcloud, client: NextcloudClient
) -> None:
    nextcloud.open.clear()
    of_one = [asyncio.create_task(client.record(f"one{number}", "192.0.2.1")) for number in range(50)]
    await nextcloud.wait_for(2)
    of_many = [asyncio.create_task(client.record(f"many{number}", f"192.0.2.{number}")) for number in range(2, 50)]
    await nextcloud.wait_for(8)
    assert len(nextcloud.asked) == 8
    assert sum("=one" in asked.target for asked in nextcloud.asked) == 2
    nextcloud.open.set()
    await asyncio.gather(*of_one, *of_many)
    assert len(nextcloud.asked) == 98


async def test_a_client_with_many_sessions_does_not_keep_the_next_one_waiting(
    nextcloud: FakeNextcloud, client: NextcloudClient
) -> None:
    nextcloud.open.clear()
    many = [
        asyncio.create_task(
            client.visitor("hello", login((b"cookie", b"oc_sessionPassphrase=%d" % number)), ADDRESS, "a")
        )
        for number in range(1000)
    ]
    await nextcloud.wait_for(8)
    other = asyncio.create_task(client.visitor("hello", login(COOKIE), ADDRESS, "b"))
    await nextcloud.wait_for(9)
    assert nextcloud.asked[8].value("cookie") == COOKIE[1].decode()
    nextcloud.open.set()
    await other
    await asyncio.gather(*many)


async def test_a_record_that_two_clients_want_waits_in_the_shorter_line(
    nextcloud: FakeNextcloud, client: NextcloudClient
) -> None:
    nextcloud.open.clear()
    many = [asyncio.create_task(client.record(f"app{number}", "192.0.2.1")) for number in range(50)]
    await nextcloud.wait_for(2)
    client.also("app49", "192.0.2.2")
    await nextcloud.wait_for(3)
    assert nextcloud.asked[2].target.endswith("=app49")
    nextcloud.open.set()
    await asyncio.gather(*many)
    assert nextcloud.count("exapp-meta") == 50


async def test_a_client_that_is_banned_while_its_calls_wait_has_none_made(nextcloud: FakeNextcloud) -> None:
    banned: set[str] = set()
    settings = Nextcloud(url=nextcloud.url, session_lifetime=3, record_lifetime=60, connect_timeout=2, timeout=5)
    client = NextcloudClient(settings, "the key", Clock(), lambda source: 300.0 if source in banned else 0.0)
    nextcloud.open.clear()
    tries = [asyncio.create_task(client.visitor("hello", login(BASIC), ADDRESS, ADDRESS)) for _ in range(200)]
    await nextcloud.wait_for(8)
    banned.add(ADDRESS)
    nextcloud.open.set()
    seen = [one.fact for one in await asyncio.gather(*tries)]
    assert len(nextcloud.asked) == 8
    assert sum(isinstance(fact, Trouble) for fact in seen) == 192
    await client.close()


async def test_a_record_that_waits_too_long_for_its_turn_is_trouble(nextcloud: FakeNextcloud) -> None:
    client = client_of(nextcloud.url, timeout=0.05)
    nextcloud.open.clear()
    facts = await asyncio.gather(*(client.record(f"app{number}") for number in range(30)))
    assert all(isinstance(fact, Trouble) for fact in facts)
    await client.close()


# A Nextcloud that hangs, and one that is there but for a moment


async def test_after_one_call_without_an_answer_all_others_are_answered_at_once(nextcloud: FakeNextcloud) -> None:
    client = client_of(nextcloud.url, timeout=0.1)
    nextcloud.open.clear()
    assert (await trouble(client)).reason == "Nextcloud has not answered within 0.1 s"
    for number in range(100):
        seen = await client.visitor("hello", login((b"cookie", b"oc_sessionPassphrase=%d" % number)), ADDRESS)
        assert seen.fact == Trouble("Nextcloud has not answered within 0.1 s")
    assert len(nextcloud.asked) == 1
    await client.close()


async def test_calls_that_wait_for_their_turn_are_answered_when_nextcloud_is_found_to_hang(
    nextcloud: FakeNextcloud,
) -> None:
    client = client_of(nextcloud.url, timeout=0.5)
    nextcloud.open.clear()
    first = [asyncio.create_task(client.record(f"app{number}", "192.0.2.1")) for number in range(2)]
    await nextcloud.wait_for(2)
    waiting = [asyncio.create_task(client.record(f"late{number}", "192.0.2.1")) for number in range(100)]
    facts = await asyncio.gather(*first, *waiting)
    assert all(isinstance(fact, Trouble) for fact in facts)
    assert len(nextcloud.asked) == 2
    await client.close()


async def test_a_probe_finds_out_that_nextcloud_no_longer_hangs(nextcloud: FakeNextcloud) -> None:
    client = client_of(nextcloud.url, timeout=0.5)
    nextcloud.open.clear()
    await trouble(client)
    assert isinstance(await client.record(CONTROL), Trouble)  # the probe is made, and not answered
    assert len(nextcloud.asked) == 2
    nextcloud.open.set()
    await trouble(client)
    assert len(nextcloud.asked) == 2
    assert not isinstance(await client.record(CONTROL), Trouble)
    assert isinstance(await client.record("hello"), ExApp)
    await client.close()


async def test_a_call_without_an_answer_keeps_nobody_from_asking_while_others_are_answered() -> None:
    async with FakeNextcloud() as nextcloud:
        client = client_of(nextcloud.url, asyncio.get_running_loop().time, timeout=0.5)
        nextcloud.hold = "slow"
        slow = asyncio.create_task(client.record("slow"))
        await nextcloud.wait_for(1)
        while not slow.done():
            assert isinstance(await client.record("hello"), ExApp)
        assert isinstance(slow.result(), Trouble)
        assert isinstance(await client.record("hello"), ExApp)
        await client.close()


async def test_nobody_is_refused_for_connections_that_fail_while_others_are_answered() -> None:
    """A full backlog, a worker that is being replaced: one in seven connections is reset, and once nobody listens."""
    async with Flaky() as nextcloud:
        client = client_of(nextcloud.url, asyncio.get_running_loop().time)
        for round_ in range(4):
            if round_ == 2:
                nextcloud.be_away(0.1)
            calls = (
                client.visitor(
                    "hello", login((b"cookie", b"oc_sessionPassphrase=%d-%d" % (round_, number))), ADDRESS, f"{number}"
                )
                for number in range(50)
            )
            seen = await asyncio.gather(*calls)
            assert [one.fact for one in seen if isinstance(one.fact, Trouble)] == []
        assert nextcloud.reset > 20
        await client.close()


async def test_a_client_that_was_never_used_closes() -> None:
    await client_of("http://127.0.0.1:1").close()
