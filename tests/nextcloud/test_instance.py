"""Facts of one Nextcloud: who is asked, what is kept, and what is known of Nextcloud itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from harp.nextcloud.instance import Instance
from harp.policy.exapp import ExApp, Level, Route, Trouble, UnknownApp, Visitor
from harp.policy.verdict import Forward, Refuse
from harp.settings import load
from tests.fakes.clock import Clock
from tests.fakes.nextcloud import KEY_REFUSED, RECORD, Answer, FakeNextcloud
from tests.fakes.waiting import settled
from tests.nextcloud.instance_requests import ADDRESS, call, question, served, visitor

SESSION = (b"cookie", b"oc_sessionPassphrase=abc")

HELLO = ExApp("hello", "pushed", "2", "10.0.0.1", 80, (Route("^/public", Level.PUBLIC),))


@pytest.fixture
async def nextcloud() -> AsyncIterator[FakeNextcloud]:
    async with FakeNextcloud() as nextcloud:
        yield nextcloud


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def instance(nextcloud: FakeNextcloud, clock: Clock) -> AsyncIterator[Instance]:
    instance = Instance(load({"HP_SHARED_KEY": "the key", "NC_INSTANCE_URL": nextcloud.url}), clock)
    yield instance
    await instance.close()


async def test_200_assets_of_one_page_cost_one_call_of_each_kind(nextcloud: FakeNextcloud, instance: Instance) -> None:
    requests = [call(b"/exapps/hello/public/%d.js" % number, SESSION) for number in range(200)]
    verdicts = await asyncio.gather(*(served(instance, request) for request in requests))
    assert all(isinstance(verdict, Forward) and verdict.user == "bob" for verdict in verdicts)
    assert (nextcloud.count("exapp-meta"), nextcloud.count("user-info")) == (1, 1)


async def test_who_has_little_patience_goes_on_without_an_answer_and_the_next_one_has_it(
    nextcloud: FakeNextcloud, instance: Instance
) -> None:
    asked, login = question(instance, call(b"/", SESSION))
    digest = asked.asker.credentials.digest
    nextcloud.open.clear()
    fact = await instance.visitor_of("hello", digest, login, ADDRESS, patience=0.05)
    assert fact == Trouble("Nextcloud has not answered within 0.05 s")
    nextcloud.open.set()
    assert await instance.visitor_of("hello", digest, login, ADDRESS) == Visitor("bob", Level.USER)
    assert nextcloud.count("user-info") == 1


async def test_a_scanner_that_asks_for_an_app_first_does_not_keep_others_waiting_for_it(
    nextcloud: FakeNextcloud, instance: Instance
) -> None:
    nextcloud.open.clear()
    scans = [asyncio.create_task(instance.record_of(f"app{number}", "192.0.2.1")) for number in range(50)]
    await nextcloud.wait_for(2)
    wanted = asyncio.create_task(instance.record_of("app49", "192.0.2.2"))
    await nextcloud.wait_for(3)
    assert nextcloud.asked[2].target.endswith("=app49")
    nextcloud.open.set()
    assert isinstance(await wanted, ExApp)
    await asyncio.gather(*scans)
    assert nextcloud.count("exapp-meta") == 50


async def test_different_credentials_are_asked_for_separately(nextcloud: FakeNextcloud, instance: Instance) -> None:
    for header in (
        SESSION,
        (b"cookie", b"oc_sessionPassphrase=abc; a=b"),
        (b"authorization", b"Bearer x"),
        (b"authorization", b"Bearer y"),
    ):
        await served(instance, call(b"/exapps/hello/public", header))
    assert nextcloud.count("user-info") == 4


async def test_a_session_is_shared_between_apps(nextcloud: FakeNextcloud, instance: Instance) -> None:
    for path in (b"/exapps/hello/public", b"/exapps/other/public"):
        await served(instance, call(path, SESSION))
    assert (nextcloud.count("exapp-meta"), nextcloud.count("user-info")) == (2, 1)


async def test_whoever_gives_up_waiting_leaves_the_call_to_the_others(
    nextcloud: FakeNextcloud, instance: Instance
) -> None:
    nextcloud.open.clear()
    first, second = (asyncio.create_task(served(instance, call())) for _ in range(2))
    await nextcloud.wait_for(1)
    first.cancel()
    await asyncio.wait((first,))
    nextcloud.open.set()
    assert isinstance(await second, Forward)
    assert nextcloud.count("exapp-meta") == 1


async def test_an_answer_nobody_waits_for_any_more_is_kept(nextcloud: FakeNextcloud, instance: Instance) -> None:
    nextcloud.open.clear()
    only = asyncio.create_task(served(instance, call()))
    await nextcloud.wait_for(1)
    only.cancel()
    await asyncio.wait((only,))
    nextcloud.open.set()
    assert isinstance(await served(instance, call()), Forward)
    assert nextcloud.count("exapp-meta") == 1


async def test_a_known_record_needs_no_call(nextcloud: FakeNextcloud, instance: Instance) -> None:
    instance.put(HELLO)
    assert isinstance(await served(instance, call()), Forward)
    assert nextcloud.asked == []


async def test_an_unknown_app_is_asked_for_once_in_15_seconds(
    nextcloud: FakeNextcloud, instance: Instance, clock: Clock
) -> None:
    nextcloud.record = Answer(401, KEY_REFUSED)
    for _ in range(3):
        verdict = await served(instance, call())
        assert isinstance(verdict, Refuse)
        assert (verdict.status, verdict.reason) == (404, "Nextcloud knows no ExApp hello with this shared key")
    assert nextcloud.count("exapp-meta") == 1
    clock.move(15)
    await served(instance, call())
    assert nextcloud.count("exapp-meta") == 2


async def test_trouble_is_503_and_asked_again_at_the_next_request(nextcloud: FakeNextcloud, instance: Instance) -> None:
    nextcloud.script.append(Answer(503, headers={"x-nextcloud-maintenance-mode": "1", "retry-after": "120"}))
    verdict = await served(instance, call())
    assert isinstance(verdict, Refuse)
    assert (verdict.status, verdict.retry_after, verdict.strike) == (503, 120, False)
    assert isinstance(await served(instance, call()), Forward)


async def test_a_record_is_refreshed_in_the_background_while_the_old_one_serves(
    nextcloud: FakeNextcloud, instance: Instance, clock: Clock
) -> None:
    await served(instance, call())
    clock.move(60)
    nextcloud.record = Answer(body={**RECORD, "exapp_version": "2.0.0"})
    nextcloud.open.clear()
    verdict = await served(instance, call())
    assert isinstance(verdict, Forward)
    assert verdict.record.version == "1.2.3"
    await nextcloud.wait_for(2)
    nextcloud.open.set()
    await instance.record_of("hello")  # joins the refresh under way
    assert nextcloud.count("exapp-meta") == 2
    verdict = await served(instance, call())
    assert isinstance(verdict, Forward)
    assert verdict.record.version == "2.0.0"


async def test_a_stale_record_serves_while_nextcloud_is_in_trouble(
    nextcloud: FakeNextcloud, instance: Instance, clock: Clock
) -> None:
    await served(instance, call())
    nextcloud.record = Answer(500)
    clock.move(3600)
    assert isinstance(await served(instance, call()), Forward)
    assert isinstance(await instance.record_of("hello"), ExApp)


async def test_an_app_that_is_gone_from_nextcloud_goes_with_the_next_refresh(
    nextcloud: FakeNextcloud, instance: Instance, clock: Clock
) -> None:
    await served(instance, call())
    nextcloud.record = Answer(401, KEY_REFUSED)
    clock.move(60)
    assert isinstance(await served(instance, call()), Forward)
    await instance.record_of("hello")
    assert isinstance(await served(instance, call()), Refuse)


async def test_a_failed_connection_refreshes_the_record_at_the_next_request(
    nextcloud: FakeNextcloud, instance: Instance
) -> None:
    await served(instance, call())
    instance.connection_failed("hello")
    await served(instance, call())
    await nextcloud.wait_for(2)
    assert nextcloud.count("exapp-meta") == 2


async def test_a_pushed_record_wins_over_an_answer_that_was_asked_for_before(
    nextcloud: FakeNextcloud, instance: Instance
) -> None:
    nextcloud.open.clear()
    waiting = asyncio.create_task(served(instance, call()))
    await nextcloud.wait_for(1)
    instance.put(HELLO)
    nextcloud.open.set()
    verdict = await waiting
    assert isinstance(verdict, Forward)
    assert verdict.record is HELLO
    assert instance.record("hello") is HELLO


async def test_a_deleted_record_is_not_brought_back_by_an_answer_that_was_asked_for_before(
    nextcloud: FakeNextcloud, instance: Instance
) -> None:
    nextcloud.open.clear()
    waiting = asyncio.create_task(served(instance, call()))
    await nextcloud.wait_for(1)
    assert instance.delete("Hello") is False
    nextcloud.open.set()
    await waiting
    assert instance.record("hello") is None


async def test_delete_says_whether_there_was_a_record(instance: Instance) -> None:
    instance.put(HELLO)
    assert instance.delete("HELLO") is True
    assert instance.delete("hello") is False


async def test_a_refusal_of_the_app_in_a_visitors_answer_puts_the_record_in_doubt(
    nextcloud: FakeNextcloud, instance: Instance
) -> None:
    await served(instance, call())
    nextcloud.user = Answer(401, KEY_REFUSED)
    nextcloud.record = Answer(401, KEY_REFUSED)
    assert isinstance(await served(instance, call(b"/exapps/hello/public", SESSION)), Forward)
    await nextcloud.wait_for(3)
    assert nextcloud.count("exapp-meta") == 2


async def test_an_answer_lives_as_long_as_a_session(nextcloud: FakeNextcloud, instance: Instance, clock: Clock) -> None:
    for seconds, calls in [(0.0, 1), (2.9, 1), (0.2, 2)]:
        clock.move(seconds)
        await served(instance, call(b"/exapps/hello/public", SESSION))
        assert nextcloud.count("user-info") == calls


async def test_an_anonymous_answer_is_remembered_and_a_refusal_is_not(
    nextcloud: FakeNextcloud, instance: Instance
) -> None:
    nextcloud.user = Answer(body={"user_id": "", "access_level": 0})
    for _ in range(3):
        await served(instance, call(b"/exapps/hello/public", SESSION))
    assert nextcloud.count("user-info") == 1
    nextcloud.user = Answer(401, {"message": "Current user is not logged in"})
    for _ in range(3):
        await served(instance, call(b"/exapps/hello/public", (b"authorization", b"Basic eDp5")))
    assert nextcloud.count("user-info") == 4


async def test_trouble_is_told_to_all_who_wait_and_not_remembered(nextcloud: FakeNextcloud, instance: Instance) -> None:
    await served(instance, call())
    nextcloud.user = Answer(500)
    answers = await asyncio.gather(*(visitor(instance, SESSION) for _ in range(5)))
    assert answers == [Trouble("Nextcloud answers 500")] * 5
    nextcloud.user = Answer(body={"user_id": "bob", "access_level": 1})
    assert await visitor(instance, SESSION) == Visitor("bob", Level.USER)


async def test_enough_strikes_are_a_ban_that_can_be_lifted(instance: Instance, clock: Clock) -> None:
    for _ in range(10):
        instance.strike(ADDRESS, "wrong key")
    verdict = await served(instance, call())
    assert isinstance(verdict, Refuse)
    assert (verdict.status, verdict.retry_after) == (429, 300)
    assert instance.bans.lift(ADDRESS)
    assert isinstance(await served(instance, call()), Forward)


async def test_a_peer_that_names_clients_without_leave_is_struck_for_them_all(instance: Instance) -> None:
    """With changing addresses it would never be banned; a reverse proxy with many clients is not banned for one."""
    for number in range(99):
        instance.strike(f"203.0.113.{number}", "wrong key", "proxy 172.18.0.5")
    assert instance.banned("proxy 172.18.0.5") == 0.0
    with capture_logs() as events:
        instance.strike("203.0.113.99", "wrong key", "proxy 172.18.0.5")
    assert instance.banned("proxy 172.18.0.5") > 0.0
    assert "HP_TRUSTED_PROXY_IPS" in events[-1]["fix"]


async def test_a_banned_private_address_may_be_the_reverse_proxy_and_the_log_says_how_to_cure_it(
    instance: Instance,
) -> None:
    with capture_logs() as events:
        for address in ("172.18.0.5", "8.8.4.4"):
            for _ in range(10):
                instance.strike(address, "wrong key")
    banned = [event for event in events if event["event"] == "address banned"]
    assert ["fix" in event for event in banned] == [True, False]


async def test_each_fact_is_logged_once_and_without_secrets(nextcloud: FakeNextcloud, instance: Instance) -> None:
    nextcloud.record = Answer(500)
    with capture_logs() as events:
        await served(instance, call())
        await instance.probe()
        nextcloud.record = Answer(body={**RECORD, "routes": [{"url": "[", "access_level": 0}]})
        for _ in range(3):
            await served(instance, call())
        await instance.record_of("hello")  # the same record again is no news
        for _ in range(11):
            instance.strike(ADDRESS, "wrong key")
    assert [event["event"] for event in events] == [
        "Nextcloud unavailable",
        "Nextcloud available again",
        "record loaded",
        "route skipped",
        *["strike counted"] * 10,
        "address banned",
        "strike counted",
    ]
    assert not any(secret in repr(events) for secret in ("the key", "secret"))


async def test_readiness_is_unknown_until_nextcloud_has_been_asked(
    nextcloud: FakeNextcloud, instance: Instance, clock: Clock
) -> None:
    assert (instance.reachable, instance.last_error) == (None, "")
    nextcloud.record = Answer(401, KEY_REFUSED)
    assert await instance.probe()
    assert (instance.reachable, instance.last_error) == (True, "")
    nextcloud.record = Answer(500)
    assert not await instance.probe()
    assert (instance.reachable, instance.last_error) == (False, "Nextcloud answers 500")


async def test_trouble_with_one_visitor_says_nothing_about_nextcloud_until_a_probe_does(
    nextcloud: FakeNextcloud, instance: Instance, clock: Clock
) -> None:
    await served(instance, call())
    clock.move(10)
    nextcloud.script.append(Answer(429))
    assert isinstance(await visitor(instance, SESSION), Trouble)
    await nextcloud.wait_for(3)
    assert "appId=app_api" in nextcloud.asked[2].target
    await instance.probe()
    assert instance.reachable


async def test_a_request_that_meets_an_outage_has_it_noticed(nextcloud: FakeNextcloud, instance: Instance) -> None:
    nextcloud.record = Answer(500)
    await served(instance, call())
    await instance.probe()
    assert (instance.reachable, instance.last_error) == (False, "Nextcloud answers 500")


async def test_a_nextcloud_without_appapi_is_not_ready(nextcloud: FakeNextcloud, instance: Instance) -> None:
    nextcloud.record = Answer(404)
    assert not await instance.probe()
    assert "is AppAPI enabled" in instance.last_error


async def test_readiness_is_kept_fresh_in_the_background(nextcloud: FakeNextcloud, instance: Instance) -> None:
    nextcloud.open.clear()
    for _ in range(5):
        instance.keep_probed()
    await nextcloud.wait_for(1)
    joining = asyncio.create_task(instance.probe())
    await settled()
    nextcloud.open.set()
    assert await joining
    assert len(nextcloud.asked) == 1


async def test_news_of_any_kind_makes_a_probe_needless(
    nextcloud: FakeNextcloud, instance: Instance, clock: Clock
) -> None:
    await instance.probe()
    clock.move(29)
    instance.keep_probed()
    await served(instance, call())
    assert [asked.target.partition("=")[2] for asked in nextcloud.asked] == ["app_api", "hello"]
    clock.move(30)
    instance.keep_probed()
    await nextcloud.wait_for(3)
    await instance.probe()


async def test_probing_asks_for_an_id_that_no_app_can_have(nextcloud: FakeNextcloud, instance: Instance) -> None:
    await instance.probe()
    assert nextcloud.asked[0].target.endswith("exapp-meta?appId=app_api")
    assert isinstance(instance.record("app_api"), ExApp | UnknownApp)


async def test_closing_tells_who_waits(nextcloud: FakeNextcloud, instance: Instance) -> None:
    nextcloud.open.clear()
    waiting = asyncio.create_task(served(instance, call()))
    await nextcloud.wait_for(1)
    await instance.close()
    verdict = await waiting
    assert isinstance(verdict, Refuse)
    assert (verdict.status, verdict.reason) == (503, "HaRP is stopping")
    late = await served(instance, call())
    assert isinstance(late, Refuse)
    assert late.status == 503


async def test_an_unreachable_nextcloud_leaves_public_routes_of_known_apps_open(clock: Clock) -> None:
    async with FakeNextcloud() as gone:
        url = gone.url
    instance = Instance(load({"HP_SHARED_KEY": "the key", "NC_INSTANCE_URL": url}), clock)
    instance.put(HELLO)
    verdict = await served(instance, call(b"/exapps/hello/public", SESSION))
    assert isinstance(verdict, Forward)
    assert "cannot be reached" in verdict.reason
    await instance.close()


async def test_a_doubted_record_is_another_version_of_the_facts_once(
    nextcloud: FakeNextcloud, instance: Instance, clock: Clock
) -> None:
    """Kept decisions are not to hide that the record has to be asked for again."""
    await served(instance, call())
    before = instance.version
    for _ in range(3):
        instance.connection_failed("hello")
    assert instance.version == before + 1


async def test_a_nextcloud_that_knows_no_exapp_at_all_may_refuse_the_key_and_the_log_says_so_once(
    nextcloud: FakeNextcloud, instance: Instance
) -> None:
    nextcloud.record = Answer(401, KEY_REFUSED)
    with capture_logs() as events:
        await instance.probe()
        await instance.record_of("hello")
        await instance.record_of("other")
    (warning,) = [event for event in events if event["log_level"] == "warning"]
    assert warning["event"] == "Nextcloud refuses the shared key or knows no ExApp at all"
    assert (warning["asked_for"], "HP_SHARED_KEY" in warning["fix"]) == ("hello", True)


async def test_a_scanner_that_asks_for_apps_beside_those_there_are_proves_nothing_against_the_key(
    nextcloud: FakeNextcloud, instance: Instance
) -> None:
    await instance.record_of("hello")
    nextcloud.record = Answer(401, KEY_REFUSED)
    with capture_logs() as events:
        await instance.record_of("nobody")
    assert [event for event in events if event["log_level"] == "warning"] == []
