"""Every row of the tables of Nextcloud's answers, against a real HTTP server (A 5.1, A 5.2)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trustme

from harp.nextcloud.breaker import RETRY
from harp.nextcloud.client import RECORD_SIZE, VISITOR_SIZE, NextcloudClient, Seen
from harp.policy.decide import CONTROL
from harp.policy.exapp import ANONYMOUS, ExApp, Level, Trouble, UnknownApp, Visitor
from harp.policy.question import Login, by_name, login_of
from harp.settings import Nextcloud
from tests.fakes.clock import Clock
from tests.fakes.flaky import Flaky
from tests.fakes.nextcloud import KEY_REFUSED, RECORD, Answer, FakeNextcloud

COOKIE = (b"cookie", b"oc_sessionPassphrase=abc; instance=def")
BASIC = (b"authorization", b"Basic Ym9iOmJvYg==")
OWN_HEADERS = {"host", "accept", "accept-encoding", "user-agent"}


def client_of(url: str, clock: Callable[[], float] | None = None, timeout: float = 5.0) -> NextcloudClient:
    settings = Nextcloud(url=url, session_lifetime=3, record_lifetime=60, connect_timeout=2, timeout=timeout)
    return NextcloudClient(settings, "the key", clock or Clock())


@pytest.fixture
async def nextcloud() -> AsyncIterator[FakeNextcloud]:
    async with FakeNextcloud() as nextcloud:
        yield nextcloud


@pytest.fixture
async def client(nextcloud: FakeNextcloud) -> AsyncIterator[NextcloudClient]:
    client = client_of(nextcloud.url)
    yield client
    await client.close()


ADDRESS = "203.0.113.7"


def login(*headers: tuple[bytes, bytes]) -> Login:
    return login_of(by_name(list(headers))) or Login()


async def trouble(client: NextcloudClient) -> Trouble:
    fact = await client.record("hello")
    assert isinstance(fact, Trouble)
    assert fact.reason.isprintable()
    assert len(fact.reason) <= 200
    assert "the key" not in fact.reason
    return fact


# What is sent


async def test_a_record_is_asked_for_with_the_key_alone(nextcloud: FakeNextcloud, client: NextcloudClient) -> None:
    await client.record("hello")
    (asked,) = nextcloud.asked
    assert (asked.method, asked.target) == ("GET", "/index.php/apps/app_api/harp/exapp-meta?appId=hello")
    assert asked.names() == OWN_HEADERS | {"harp-shared-key"}
    assert asked.value("harp-shared-key") == "the key"


async def test_a_visitor_is_asked_for_with_credentials_and_address_alone(
    nextcloud: FakeNextcloud, client: NextcloudClient
) -> None:
    hop_by_hop = [
        (b"connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"expect", b"100-continue"),
        (b"upgrade", b"websocket"),
        (b"te", b"trailers"),
        (b"range", b"bytes=0-1"),
        (b"if-none-match", b"x"),
        (b"harp-shared-key", b"of the client"),
        (b"user-agent", b"of the client"),
        (b"x-forwarded-for", b"6.6.6.6"),
    ]
    await client.visitor("hello", login(*hop_by_hop, COOKIE, BASIC), ADDRESS)
    (asked,) = nextcloud.asked
    assert (asked.method, asked.target) == ("GET", "/index.php/apps/app_api/harp/user-info?appId=hello")
    assert asked.names() == OWN_HEADERS | {"harp-shared-key", "cookie", "authorization", "x-forwarded-for"}
    assert asked.value("cookie") == COOKIE[1].decode()
    assert asked.value("authorization") == BASIC[1].decode()
    assert asked.value("x-forwarded-for") == "203.0.113.7"
    assert asked.value("harp-shared-key") == "the key"


async def test_every_cookie_line_of_the_client_travels(nextcloud: FakeNextcloud, client: NextcloudClient) -> None:
    await client.visitor("hello", login((b"cookie", b"a=1"), COOKIE), ADDRESS)
    assert nextcloud.asked[0].value("cookie") == "a=1; " + COOKIE[1].decode()


async def test_utf8_in_a_cookie_travels_unchanged(nextcloud: FakeNextcloud, client: NextcloudClient) -> None:
    await client.visitor("hello", Login("name=zoé".encode()), ADDRESS)
    assert nextcloud.asked[0].value("cookie").encode("latin-1") == "name=zoé".encode()


async def test_cookies_that_nextcloud_sets_stay_with_nobody(nextcloud: FakeNextcloud, client: NextcloudClient) -> None:
    nextcloud.script.append(Answer(body=RECORD, headers={"set-cookie": "session=of-somebody; Path=/"}))
    await client.record("hello")
    await client.record("hello")
    assert "cookie" not in nextcloud.asked[1].names()


# What a record's answer means


async def test_200_is_a_record(client: NextcloudClient) -> None:
    record = await client.record("hello")
    assert isinstance(record, ExApp)
    assert (record.app_id, record.host, record.port) == ("hello", "127.0.0.1", 23001)


async def test_a_chunked_answer_is_read_like_any_other(nextcloud: FakeNextcloud, client: NextcloudClient) -> None:
    nextcloud.record = Answer(body=RECORD, chunked=True)
    assert isinstance(await client.record("hello"), ExApp)


@pytest.mark.parametrize(("answer", "no_appapi"), [(Answer(401, KEY_REFUSED), False), (Answer(404, b"<html>"), True)])
async def test_401_and_404_are_an_unknown_app(
    nextcloud: FakeNextcloud, client: NextcloudClient, answer: Answer, no_appapi: bool
) -> None:
    nextcloud.record = answer
    fact = await client.record("hello")
    assert isinstance(fact, UnknownApp)
    assert fact.no_appapi is no_appapi


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(204), "answers 204"),
        (Answer(304), "answers 304"),
        (Answer(400, b"untrusted"), "trusted_domains"),
        (Answer(403), "answers 403"),
        (Answer(429), "throttles"),
        (Answer(500, b"<html>"), "answers 500"),
        (Answer(502), "answers 502"),
        (Answer(503), "answers 503"),
        (Answer(200, b""), "cannot be used"),
        (Answer(200, b"<html>maintenance"), "cannot be used"),
        (Answer(200, {"exapp_token": "x"}), "cannot be used"),
        (Answer(200, b"x" * (RECORD_SIZE + 1)), f"longer than {RECORD_SIZE} bytes"),
        (Answer(200, b"x" * (RECORD_SIZE + 1), chunked=False), "longer than"),
        (Answer(raw=b"garbage\r\n\r\n"), "call to Nextcloud failed"),
        (Answer(raw=b""), "call to Nextcloud failed"),
        (Answer(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}"), "call to Nextcloud failed"),
        (Answer(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"), "call to Nextcloud failed"),
    ],
)
async def test_every_other_answer_is_trouble_with_its_reason(
    nextcloud: FakeNextcloud, client: NextcloudClient, answer: Answer, reason: str
) -> None:
    nextcloud.record = answer
    assert reason in (await trouble(client)).reason


async def test_maintenance_mode_says_when_to_come_back(nextcloud: FakeNextcloud, client: NextcloudClient) -> None:
    nextcloud.record = Answer(503, headers={"x-nextcloud-maintenance-mode": "1", "retry-after": "120"})
    assert await client.record("hello") == Trouble("Nextcloud is in maintenance mode", 120)


@pytest.mark.parametrize(("retry_after", "seconds"), [("99999999999", 300), ("-1", 5), ("Fri, 31 Dec", 5), ("٣", 5)])
async def test_an_odd_retry_after_is_bounded(
    nextcloud: FakeNextcloud, client: NextcloudClient, retry_after: str, seconds: int
) -> None:
    nextcloud.record = Answer(503, headers={"retry-after": retry_after})
    assert (await trouble(client)).retry_after == seconds


async def test_an_id_is_quoted_in_the_query(nextcloud: FakeNextcloud, client: NextcloudClient) -> None:
    await client.record("a&b=c/%")
    assert nextcloud.asked[0].target.endswith("?appId=a%26b%3Dc%2F%25")


# What a visitor's answer means


@pytest.mark.parametrize(
    ("answer", "headers", "seen"),
    [
        (Answer(body={"user_id": "bob", "access_level": 1}), [COOKIE], Seen(Visitor("bob", Level.USER), lasting=True)),
        (Answer(body={"user_id": "a", "access_level": 2}), [BASIC], Seen(Visitor("a", Level.ADMIN), lasting=True)),
        (
            Answer(body={"user_id": "gone", "access_level": 0}),
            [COOKIE],
            Seen(Visitor("gone", Level.PUBLIC), lasting=True),
        ),
        (Answer(body={"user_id": "", "access_level": 0}), [COOKIE], Seen(ANONYMOUS, lasting=True)),
        (
            Answer(body={"user_id": "", "access_level": 0}),
            [COOKIE, BASIC],
            Seen(Visitor("", Level.PUBLIC, refused=True), lasting=True),
        ),
        (Answer(401, KEY_REFUSED), [BASIC], Seen(ANONYMOUS, app_refused=True)),
        (
            Answer(401, {"message": "Current user is not logged in"}),
            [BASIC],
            Seen(Visitor("", Level.PUBLIC, refused=True)),
        ),
        (Answer(403), [BASIC], Seen(Visitor("", Level.PUBLIC, refused=True))),
        (Answer(401), [COOKIE], Seen(ANONYMOUS)),
        (Answer(403), [COOKIE], Seen(ANONYMOUS)),
        (Answer(404), [BASIC], Seen(ANONYMOUS)),
        (Answer(412), [COOKIE], Seen(ANONYMOUS)),
        (Answer(429), [BASIC], Seen(Trouble("Nextcloud throttles this client (429)"))),
        (Answer(500), [COOKIE], Seen(Trouble("Nextcloud answers 500"))),
        (Answer(204), [COOKIE], Seen(Trouble("Nextcloud answers 204"))),
        (
            Answer(503, headers={"x-nextcloud-maintenance-mode": "1", "retry-after": "120"}),
            [COOKIE],
            Seen(Trouble("Nextcloud is in maintenance mode", 120)),
        ),
    ],
)
async def test_a_visitors_answer(
    nextcloud: FakeNextcloud, client: NextcloudClient, answer: Answer, headers: list[tuple[bytes, bytes]], seen: Seen
) -> None:
    nextcloud.user = answer
    assert await client.visitor("hello", login(*headers), ADDRESS) == seen


@pytest.mark.parametrize("body", [b"<html>login", b"{}", b"x" * (VISITOR_SIZE + 1)])
async def test_an_unreadable_visitors_answer_is_trouble(
    nextcloud: FakeNextcloud, client: NextcloudClient, body: bytes
) -> None:
    nextcloud.user = Answer(200, body)
    assert isinstance((await client.visitor("hello", login(COOKIE), ADDRESS)).fact, Trouble)


async def test_credentials_that_cannot_be_sent_are_trouble(nextcloud: FakeNextcloud, client: NextcloudClient) -> None:
    seen = await client.visitor("hello", Login(b"", b"Basic x\r\nharp-shared-key: y"), ADDRESS)
    assert isinstance(seen.fact, Trouble)
    assert nextcloud.asked == []


# Redirects


async def test_redirects_within_the_origin_are_followed(nextcloud: FakeNextcloud, client: NextcloudClient) -> None:
    nextcloud.script.extend(
        [
            Answer(301, headers={"location": "/elsewhere?a=%2F#fragment"}),
            Answer(302, headers={"location": nextcloud.url + "/again"}),
            Answer(308, headers={"location": "last"}),
        ]
    )
    nextcloud.user = Answer(body=RECORD)
    assert isinstance(await client.record("hello"), ExApp)
    assert [asked.target for asked in nextcloud.asked[1:]] == ["/elsewhere?a=%2F", "/again", "/last"]
    assert nextcloud.asked[-1].value("harp-shared-key") == "the key"


async def test_a_fourth_redirect_is_trouble(nextcloud: FakeNextcloud, client: NextcloudClient) -> None:
    nextcloud.record = nextcloud.user = Answer(302, headers={"location": "/index.php"})
    assert "more than 3 times" in (await trouble(client)).reason
    assert len(nextcloud.asked) == 4


async def test_the_key_never_leaves_the_origin(nextcloud: FakeNextcloud, client: NextcloudClient) -> None:
    async with FakeNextcloud() as other:
        port = nextcloud.url.rpartition(":")[2]
        for location in (
            f"{other.url}/x",
            f"https://127.0.0.1:{port}/x",
            f"http://localhost:{port}/x",
            f"http://user@127.0.0.1:{port}/x",
            f"//{other.url.removeprefix('http://')}/x",
            "http://[/x",
            "ftp://127.0.0.1/x",
        ):
            nextcloud.record = Answer(302, headers={"location": location})
            await trouble(client)
        assert other.asked == []
    assert len(nextcloud.asked) == 7


async def test_a_redirect_to_https_names_the_setting(nextcloud: FakeNextcloud, client: NextcloudClient) -> None:
    nextcloud.record = Answer(301, headers={"location": "https://cloud.example.com/index.php"})
    reason = (await trouble(client)).reason
    assert reason == "Nextcloud redirects to https://cloud.example.com:443: is NC_INSTANCE_URL right?"


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
    tries = [asyncio.create_task(client.visitor("hello", login(BASIC), ADDRESS, ADDRESS)) for _ in range(1000)]
    await nextcloud.wait_for(8)
    banned.add(ADDRESS)
    nextcloud.open.set()
    seen = [one.fact for one in await asyncio.gather(*tries)]
    assert len(nextcloud.asked) == 8
    assert sum(isinstance(fact, Trouble) for fact in seen) == 992
    await client.close()


async def test_a_record_that_waits_too_long_for_its_turn_is_trouble(nextcloud: FakeNextcloud) -> None:
    client = client_of(nextcloud.url, timeout=0.05)
    nextcloud.open.clear()
    facts = await asyncio.gather(*(client.record(f"app{number}") for number in range(30)))
    assert all(isinstance(fact, Trouble) for fact in facts)
    await client.close()


# A Nextcloud that hangs, and one that is there but for a moment


async def test_after_one_call_without_an_answer_all_others_are_answered_at_once(nextcloud: FakeNextcloud) -> None:
    client = client_of(nextcloud.url, timeout=0.5)
    nextcloud.open.clear()
    assert (await trouble(client)).reason == "Nextcloud has not answered within 0.5 s"
    for number in range(100):
        seen = await client.visitor("hello", login((b"cookie", b"oc_sessionPassphrase=%d" % number)), ADDRESS)
        assert seen.fact == Trouble("Nextcloud has not answered within 0.5 s")
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
        client = client_of(nextcloud.url, asyncio.get_running_loop().time, timeout=1.0)
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
        for round_ in range(8):
            if round_ == 4:
                nextcloud.be_away(0.1)
            calls = (
                client.visitor(
                    "hello", login((b"cookie", b"oc_sessionPassphrase=%d-%d" % (round_, number))), ADDRESS, f"{number}"
                )
                for number in range(50)
            )
            seen = await asyncio.gather(*calls)
            assert [one.fact for one in seen if isinstance(one.fact, Trouble)] == []
        assert nextcloud.reset > 40
        await client.close()


async def test_a_client_that_was_never_used_closes() -> None:
    await client_of("http://127.0.0.1:1").close()
