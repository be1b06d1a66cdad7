"""The status page, answer by answer: who sees it, what its forms take, and how it stays live."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import pytest
import pytest_asyncio
from msgspec.structs import replace

from harp.policy.verdict import Refuse
from harp.status.engines import TunnelOfEngine
from harp.status.snapshot import BanLine, CertificateLine, MemberLine
from harp.status.web import live
from tests.fakes.facts import CLUSTER, ENGINE, HELLO
from tests.status.page_world import PageWorld, header
from tests.status.test_doors import PASSWORD

pytestmark = pytest.mark.hasty

NAMES = (
    *("", "apps", "apps/hello", "requests", "tunnels", "engines", "members", "bans", "certificates", "doctor"),
    "settings",
)
LEADS = MemberLine("0", True, True, 4711, 1.7e9, 12.5, 41_000_000, 7, 1234, 2, 0.002, rate=3.25)
AWAY = MemberLine("1", False, False, 0, 0.0, 0.0, 0, 0, 0, 0, 0.0)


@pytest.fixture
async def world() -> AsyncIterator[PageWorld]:
    world = PageWorld()
    yield world
    world.clock.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shown() -> AsyncIterator[PageWorld]:
    """One that is only looked at: making the pages' templates is most of the work."""
    world = PageWorld()
    yield world
    world.clock.stop()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", NAMES)
async def test_every_page_is_html_under_a_strict_policy(shown: PageWorld, name: str) -> None:
    page = await shown.ask(f"/{name}")
    assert (page.status, page.kind) == (200, "text/html; charset=utf-8")
    policy = header(page, "content-security-policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    text = page.body.decode()
    assert " style=" not in text
    assert "<script>" not in text
    assert " onclick" not in text


@pytest.mark.parametrize("path", ["/nowhere", "/apps/nobody"])
async def test_what_is_not_there_is_404_with_the_way_back(world: PageWorld, path: str) -> None:
    page = await world.ask(path)
    assert page.status == 404
    assert b"Back to the overview" in page.body


async def test_names_that_clients_choose_are_text_and_no_markup(world: PageWorld) -> None:
    world.facts.known = [replace(HELLO, version="<script>alert(1)</script>")]
    body = (await world.ask("/apps")).body
    assert b"<script>alert" not in body
    assert b"&lt;script&gt;alert" in body


async def test_members_are_a_page_of_their_own_where_there_are_several(world: PageWorld) -> None:
    assert b'href="/members"' not in (await world.ask("/")).body
    assert b"One process serves everything" in (await world.ask("/members")).body
    world.facts.known_members = [LEADS, AWAY, replace(LEADS, name="east", leads=False, address="10.0.0.2:8782")]
    assert b'href="/members"' in (await world.ask("/")).body
    text = (await world.ask("/members")).body.decode()
    rows = text.split('<tr id="member-')[1:]
    for row, words in zip(
        rows, (("leads", "4711", "3.2", "41.0 MB"), ("not linked", "nothing is known"), ("10.0.0.2:8782",)), strict=True
    ):
        assert all(word in row for word in words), row


async def test_only_get_head_and_post_are_served(world: PageWorld) -> None:
    assert (await world.ask("/", method="DELETE")).status == 405


async def test_files_are_kept_while_they_are_the_same(world: PageWorld) -> None:
    page = await world.ask("/static/harp.css")
    assert (page.status, page.keep) == (200, "no-cache")
    tag = header(page, "etag")
    assert (await world.ask("/static/harp.css", lines=[f"If-None-Match: {tag}"])).status == 304
    named = await world.ask(f"/static/harp.css?{tag.strip(chr(34))}")
    assert "immutable" in named.keep
    assert (await world.ask("/static/..%2f..%2fsite.py")).status == 404


@pytest.mark.parametrize(("path", "status"), [("/", 401), ("/settings", 401), ("/live", 401), ("/plot", 401)])
async def test_from_another_host_nothing_is_shown_before_one_has_logged_in(
    world: PageWorld, path: str, status: int
) -> None:
    page = await world.ask(path, local=False)
    assert page.status == status
    assert b"hello" not in page.body
    await world.log_in()
    assert (await world.ask(path, local=False)).status == 200


async def test_the_cookie_is_for_http_only_and_for_our_own_pages(world: PageWorld) -> None:
    page = await world.send("/login", local=False, password=PASSWORD, lines=["X-Forwarded-Proto: https"])
    assert page.status == 303
    assert header(page, "set-cookie").endswith("; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200; Secure")


@pytest.mark.parametrize("to", ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:x"])
async def test_one_is_never_sent_to_another_site_after_the_login(world: PageWorld, to: str) -> None:
    page = await world.send("/login", local=False, password=PASSWORD, to=to)
    assert header(page, "location") == "/"


async def test_a_wrong_password_is_told_and_too_many_are_a_ban(world: PageWorld) -> None:
    for _ in range(2):
        assert b"This is not the password" in (await world.send("/login", local=False, password="wrong")).body
    assert b"try again in 1 min" in (await world.send("/login", local=False, password=PASSWORD)).body


async def test_who_is_logged_in_needs_no_login_and_can_log_out(world: PageWorld) -> None:
    await world.log_in()
    assert header(await world.ask("/login", local=False), "location") == "/"
    await world.send("/logout", local=False)
    assert (await world.ask("/", local=False)).status == 401


@pytest.mark.parametrize("lines", [["Sec-Fetch-Site: cross-site"], ["Sec-Fetch-Site: same-site"]])
async def test_a_form_of_another_site_is_refused(world: PageWorld, lines: list[str]) -> None:
    assert (await world.send("/bans/lift", address="8.8.4.4", lines=lines)).status == 403
    assert world.facts.changes == []


async def test_a_form_without_our_token_is_refused(world: PageWorld) -> None:
    assert (await world.send("/bans/lift", address="8.8.4.4", form_token="guessed")).status == 403
    assert (await world.ask("/bans/lift", method="POST")).status == 403


async def test_a_form_from_another_host_leads_to_the_login(world: PageWorld) -> None:
    assert header(await world.send("/bans/lift", local=False, address="8.8.4.4"), "location") == "/login"
    assert world.facts.changes == []


async def test_a_ban_is_lifted_and_told(world: PageWorld) -> None:
    page = await world.send("/bans/lift", address="8.8.4.4")
    assert b"8.8.4.4 is served again." in (await world.ask(header(page, "location"))).body
    again = await world.send("/bans/lift", address="8.8.4.4")
    assert b"8.8.4.4 is not banned." in (await world.ask(header(again, "location"))).body


async def test_what_is_logged_is_changed_to_what_there_is(world: PageWorld) -> None:
    assert (await world.send("/logs", level="debug", access="all")).status == 303
    assert world.facts.in_effect.log_level == "debug"
    assert (await world.send("/logs", level="loud", access="all")).status == 400
    assert (await world.send("/nothing")).status == 404


async def test_the_doctor_is_called_and_what_failed_comes_first(world: PageWorld) -> None:
    assert b"harp doctor" in (await world.ask("/doctor")).body
    assert header(await world.send("/doctor"), "location") == "/doctor"
    text = (await world.ask("/doctor")).body.decode()
    assert text.index("that is not") < text.index("this is well")
    assert "The doctor found 1 thing that failed" in (await world.ask("/")).body.decode()


async def test_long_tables_are_searched(world: PageWorld) -> None:
    world.facts.banned = {f"8.8.0.{n}": BanLine(f"8.8.0.{n}", 9.0, "key") for n in range(250)}
    assert "The first 200 of 250" in (await world.ask("/bans")).body.decode()
    assert (await world.ask("/bans?q=8.8.0.249")).body.count(b"Lift the ban of") == 1
    assert b"No ExApp has" in (await world.ask("/apps?q=xyz")).body
    assert b"HP_CERTS_DIR" not in (await world.ask("/settings?q=shared")).body


async def test_the_inspector_shows_what_came_and_hides_secrets(world: PageWorld) -> None:
    world.facts.feed.glance()
    world.requests.request(path="/exapps/Hello/page?token=secret")
    world.requests.request(503, path="/exapps/Hello/x", verdict=Refuse(503, "no tunnel"))
    text = (await world.ask("/apps/hello")).body.decode()
    assert "x-own:</span> c" in text
    assert "cookie:</span> [hidden]" in text
    assert "?token=…" in text
    assert "no tunnel" in text
    assert "1 min 15 s" in text, "how long a request has been served"
    assert "secret" not in text
    assert "no tunnel" not in (await world.ask("/requests?q=page")).body.decode()


async def test_engines_and_certificates_in_every_state(world: PageWorld) -> None:
    tunnel = TunnelOfEngine("gpu", "192.0.2.1", "box", 1.7e9, 0.01)
    lines = [ENGINE, replace(ENGINE, port=24001, tunnel=tunnel, trouble="refused"), replace(ENGINE, last_seen=None)]
    facts = world.facts
    facts.known_engines = lines
    facts.known_certificates = [CertificateLine("old", 1.0), CertificateLine("new", 4e9)]
    text = (await world.ask("/engines")).body.decode()
    assert all(word in text for word in ("answers", "does not answer", "not asked yet", "tunnel gpu of box"))
    text = (await world.ask("/certificates")).body.decode()
    assert "has ended" in text
    assert "good" in text


async def test_the_cluster_its_exapps_and_what_its_role_lacks_stand_below_the_engines(world: PageWorld) -> None:
    text = (await world.ask("/engines")).body.decode()
    assert CLUSTER.namespace in text
    assert all(f"<dt>{feature}</dt>" in text for feature in CLUSTER.missing_rights)
    assert all(exapp.name in text and exapp.note in text for exapp in CLUSTER.exapps)


async def test_a_page_is_sent_again_when_it_has_changed_and_points_as_they_are_taken(world: PageWorld) -> None:
    page = await world.ask("/live?path=/apps/hello")
    stream = page.stream
    assert stream is not None
    assert await anext(stream) == b": hello\n\n"
    assert (await anext(stream)).startswith(b"data: <header")
    world.history.sample()
    assert (await anext(stream)).startswith(b"event: plot\ndata: {")
    world.facts.known = []
    assert b"There is no" in await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]


async def test_streams_are_few(world: PageWorld) -> None:
    streams = [cast("AsyncIterator[bytes]", (await world.ask("/live")).stream) for _ in range(live.MOST_STREAMS)]
    for stream in streams:
        await anext(stream)
    assert (await world.ask("/live")).status == 503
    for stream in streams:
        await stream.aclose()  # type: ignore[attr-defined]
    assert (await world.ask("/live")).status == 200


async def test_plots_are_of_everything_or_of_one_exapp(world: PageWorld) -> None:
    world.history.sample()
    assert b'"requests":[0.0]' in (await world.ask("/plot?app=hello")).body
