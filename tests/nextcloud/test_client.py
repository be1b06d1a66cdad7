"""What Nextcloud is asked, and what its answers mean."""

from __future__ import annotations

import pytest

from harp.nextcloud.client import RECORD_SIZE, VISITOR_SIZE, NextcloudClient, Seen
from harp.policy.exapp import ANONYMOUS, ExApp, Level, Trouble, UnknownApp, Visitor
from harp.policy.question import VisitorLogin
from tests.fakes.nextcloud import KEY_REFUSED, RECORD, Answer, FakeNextcloud
from tests.nextcloud.calls import ADDRESS, BASIC, COOKIE, login, trouble

pytestmark = pytest.mark.hasty

OWN_HEADERS = {"host", "accept", "accept-encoding", "user-agent"}


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
    await client.visitor("hello", VisitorLogin("name=zoé".encode()), ADDRESS)
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
    seen = await client.visitor("hello", VisitorLogin(b"", b"Basic x\r\nharp-shared-key: y"), ADDRESS)
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
