"""The status page in a real Chromium: logged in by a name that is not this host's, with a real frpc and real requests.

HARP_SCREENSHOTS=docs/screenshots (make screenshots) keeps the pictures that the documentation shows.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.chromium import NAME, Tab, chromium
from tests.live.peers import do_without
from tests.live.product import KEY, Product, basic, running
from tests.live.tunnels import SHIPPED, start_tunnel
from tests.live.workers import Workers
from tests.live.world import TUNNEL_PORT, World

ROOT = Path(__file__).parent.parent.parent
AXE = ROOT / ".cache/exapp-servers/node_modules/axe-core/axe.min.js"
PAGES = ("", "apps", "apps/hello", "requests", "tunnels", "engines", "bans", "certificates", "doctor", "settings")
MOST_MEMORY = 80e6  # bytes, after the page, metrics and the API have been used


@pytest.fixture(scope="module")
def product(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    directory = tmp_path_factory.mktemp("product")
    settings = {"HP_BLACKLIST_COUNT": "3", "HP_LOG_LEVEL": "warning"}
    with running(directory, world.nextcloud, **settings):
        pass  # the first start makes certificates, with a library that no later one needs
    with running(directory, world.nextcloud, **settings) as product:
        yield product


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with chromium(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab, product: Product) -> Iterator[Tab]:
    """The browser, logged in. Whatever the test does, nothing is blocked and no script fails."""
    browser.show_as(1280, 900)
    browser.complaints.clear()
    browser.open(f"{home(product)}/doctor")
    if browser.evaluate("document.querySelector('#password') !== null"):
        log_in(browser, KEY)
        browser.complaints.clear()  # 401 is what the page to log in is
    yield browser
    assert browser.complaints == []


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = os.environ.get("HARP_SCREENSHOTS")
    if not place:
        return tmp_path_factory.mktemp("pictures")
    (ROOT / place).mkdir(exist_ok=True)
    return ROOT / place


def home(product: Product) -> str:
    return f"http://{NAME}:{product.admin}"


def log_in(tab: Tab, password: str) -> None:
    tab.click("#password")
    tab.type(password)
    tab.evaluate("window.before = true")
    tab.press("Enter")
    tab.until("!window.before && document.readyState === 'complete'", "answer")


def ban(product: Product, address: str) -> None:
    for _ in range(3):
        product.status("/exapps/app_api/info", harp_shared_key="another", x_forwarded_for=address)


def visit(product: Product, times: int = 1) -> None:
    """Requests as people make them."""
    for _ in range(times):
        product.status("/exapps/hello/public", x_forwarded_for="203.0.113.9", cookie="session=very secret")
        product.status("/exapps/hello/user?page=2&token=very+secret", authorization=basic("user", "user"))
        product.status("/exapps/hello/static/70000", user_agent="Mozilla/5.0 (X11; Linux x86_64)")
        product.status("/exapps/direct/public")
        product.status("/exapps/hello/admin", authorization=basic("user", "user"))


def faults(tab: Tab) -> list[str]:
    """What axe-core finds on the page as it is."""
    if not AXE.exists():
        do_without("no axe-core: run scripts/install-exapp-servers")
    tab.evaluate(AXE.read_text("utf-8") + "; true")
    found: dict[str, Any] = json.loads(tab.evaluate("axe.run().then(found => JSON.stringify(found))"))
    return [f"{fault['id']}: {node['html'][:200]}" for fault in found["violations"] for node in fault["nodes"]]


def test_a_browser_of_another_host_is_asked_for_the_password(browser: Tab, product: Product) -> None:
    browser.open(f"{home(product)}/bans")
    assert browser.evaluate("document.title") == "Log in · HaRP"
    assert faults(browser) == []
    log_in(browser, "wrong")
    assert "This is not the password." in browser.text()
    log_in(browser, KEY)
    assert browser.evaluate("location.pathname") == "/bans"
    (cookie,) = browser.send("Network.getCookies")["cookies"]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert KEY not in browser.evaluate("document.documentElement.outerHTML")


def test_a_tunnel_appears_while_one_looks_and_a_request_as_it_comes(tab: Tab, product: Product, world: World) -> None:
    tab.open(f"{home(product)}/tunnels")
    tab.until_shown("No tunnel client is connected")
    with start_tunnel(product, SHIPPED, "hello", TUNNEL_PORT, world.socket) as tunnel:
        tab.until_shown(f"frpc {SHIPPED}")
        tunnel.until(lambda: product.status("/exapps/hello/public") == 200, "tunnel")
        tab.open(f"{home(product)}/apps/hello")
        tab.until_shown("live")
        product.status("/exapps/hello/public?token=very+secret", cookie="session=very secret", x_mine="to see")
        tab.until_shown("/exapps/hello/public?token=…")
        tab.click("#content .requests summary")
        tab.until_shown("x-mine: to see")
        tab.until_shown("cookie: [hidden]")
        tab.until_shown("route ^/public$ is for PUBLIC")
        product.status("/exapps/hello/public?later=1")
        tab.until_shown("?later=…")
        assert "x-mine: to see" in tab.text(), "what was opened stays open"
        assert "very" not in tab.text()
    tab.until_shown("No tunnel has claimed port 23000")
    tab.until_shown("1 problem")


def test_the_plot_moves(tab: Tab, product: Product) -> None:
    tab.open(f"{home(product)}/")
    points = "Number(document.querySelector('[data-plot=durations]').dataset.points)"
    before = tab.until(f"document.querySelectorAll('.plot canvas').length === 2 && {points}", "plots")
    visit(product)
    tab.until(f"{points} > {before}", "new point")


def test_a_ban_is_seen_and_lifted(tab: Tab, product: Product) -> None:
    tab.open(f"{home(product)}/bans")
    ban(product, "192.0.2.7")
    tab.until_shown("192.0.2.7")
    assert product.status("/exapps/direct/public", x_forwarded_for="192.0.2.7") == 429
    tab.click("main td button")
    tab.until_shown("192.0.2.7 is served again.")
    assert product.status("/exapps/direct/public", x_forwarded_for="192.0.2.7") == 200
    tab.until_shown("Nobody is banned.")


def test_the_log_level_is_changed_where_the_settings_are(tab: Tab, product: Product) -> None:
    tab.open(f"{home(product)}/settings")
    assert "HP_BLACKLIST_COUNT" in tab.text()
    tab.evaluate("document.querySelector('[name=level]').value = 'info'; true")
    tab.click(".logs button")
    tab.until_shown("Logging at info now, requests: off.")


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_axe_finds_nothing_on_any_page(tab: Tab, product: Product, world: World, look: str) -> None:
    tab.show_as(*((390, 844) if look == "phone" else (1280, 900)), dark=look == "dark", phone=look == "phone")
    product.register("broken", "127.0.0.1", 23777)
    ban(product, "192.0.2.8")
    with start_tunnel(product, SHIPPED, "hello", TUNNEL_PORT, world.socket) as tunnel:
        tunnel.until(lambda: product.status("/exapps/hello/public") == 200, "tunnel")
        found = {}
        for page in PAGES:
            tab.open(f"{home(product)}/{page}")
            visit(product)
            tab.until("document.querySelector('#streaming').textContent === 'live'", "stream")
            tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true); true")
            found[page] = faults(tab)
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{page} is too wide"
    assert {page: faults for page, faults in found.items() if faults} == {}
    product.forget("broken")


def test_the_keyboard_reaches_the_content_first(tab: Tab, product: Product) -> None:
    tab.open(f"{home(product)}/")
    tab.painted()
    tab.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the content"
    tab.press("Enter")
    tab.until("document.activeElement.id === 'content'", "focus on the content")


def test_without_scripts_every_page_says_the_same(tab: Tab, product: Product) -> None:
    tab.without_scripts(True)
    try:
        for page, text in (("", "Requests per second"), ("bans", "strikes counted"), ("settings", "HP_SHARED_KEY")):
            tab.open(f"{home(product)}/{page}")
            assert text in tab.text()
        tab.open(f"{home(product)}/")
        assert tab.evaluate("document.querySelectorAll('.plot svg').length") == 2
    finally:
        tab.without_scripts(False)


def test_pictures_for_the_documentation(tab: Tab, product: Product, world: World, pictures: Path) -> None:
    for name, port in (("context_chat", 23004), ("talk_bot", world.direct_port)):
        product.register(name, "127.0.0.1", port, page=0, admin=2)
    with start_tunnel(product, SHIPPED, "hello", TUNNEL_PORT, world.socket) as tunnel:
        tunnel.until(lambda: product.status("/exapps/hello/public") == 200, "tunnel")
        tab.open(f"{home(product)}/")
        before = tab.until("Number(document.querySelector('.plot').dataset.points)", "plot")
        for step in (4, 9, 6):
            visit(product, step)
            product.status("/exapps/context_chat/page")
            tab.until(f"Number(document.querySelector('.plot').dataset.points) > {before}", "point")
            before += 1
        tab.picture(pictures / "overview.png")
        tab.show_as(1280, 900, dark=True)
        tab.open(f"{home(product)}/apps/hello")
        tab.until_shown("live")
        visit(product, 3)
        product.status("/exapps/hello/public?tab=1", user_agent="Mozilla/5.0 (X11; Linux x86_64)", accept_language="de")
        tab.until_shown("/exapps/hello/public?tab=…")
        tab.click(".requests summary")
        tab.picture(pictures / "exapp-dark.png")
        tab.show_as(390, 844, phone=True)
        tab.open(f"{home(product)}/requests")
        tab.until_shown("/exapps/")
        tab.picture(pictures / "phone.png")
    assert all(file.stat().st_size > 20_000 for file in pictures.glob("*.png"))
    for name in ("context_chat", "talk_bot"):
        product.forget(name)


def test_members_are_watched_while_one_of_them_is_away(browser: Tab, world: World, tmp_path: Path) -> None:
    with running(tmp_path, world.nextcloud, HP_WORKERS="2") as product:
        product.process.until(lambda: Workers(product).whole(), "both workers", pause=0.05)
        browser.show_as(1280, 900)
        browser.open(f"{home(product)}/members")
        log_in(browser, KEY)
        browser.complaints.clear()
        states = "[...document.querySelectorAll('tr[id^=member-] .state')].map(one => one.textContent).join()"
        browser.until(f"{states} === 'leads,linked'", "both members")
        assert faults(browser) == []
        browser.open(f"{home(product)}/members")
        browser.until("document.querySelector('#streaming').textContent === 'live'", "stream", 60)
        (victim,) = (one.process for one in Workers(product).members() if not one.leads)
        os.kill(victim, signal.SIGKILL)
        browser.until(
            f"document.querySelector('#member-1').textContent.includes('{victim}') === false", "another one", 60
        )
        browser.until(f"{states} === 'leads,linked'", "both members again", 60)
        assert browser.complaints == []


def examine(tab: Tab, product: Product) -> None:
    """Call the doctor, as one does on the page."""
    tab.open(f"{home(product)}/doctor")
    tab.click("#examine button")
    tab.until_shown("in order")


def test_the_doctor_is_called(tab: Tab, product: Product) -> None:
    examine(tab, product)
    assert "Made" in tab.text()
    tab.open(f"{home(product)}/")
    tab.until_shown("The doctor found")
    assert "Everything works" not in tab.text()


@pytest.mark.alone
def test_memory_stays_small_when_everything_was_used(tab: Tab, product: Product) -> None:
    product.register("hello", "127.0.0.1", TUNNEL_PORT)
    examine(tab, product)
    for page in ("/metrics", "/api/v1/snapshot"):
        assert product.admin_status(page) == 200
    for page in PAGES:
        tab.open(f"{home(product)}/{page}")
    assert product.process.rss() < MOST_MEMORY


def test_the_page_is_never_reachable_where_the_web_server_forwards(product: Product) -> None:
    for target in (
        "/",
        "/bans",
        "/exapps/app_api/",
        "/exapps/app_api/bans",
        "/exapps/",
        "/exapps/app_api/static/harp.js",
    ):
        assert product.status(target) in (401, 404), target
        assert product.status(target, cookie="harp_admin=x") in (401, 404), target
