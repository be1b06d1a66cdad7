"""The commands of an operator, asked of a HaRP that serves an ExApp behind a tunnel."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import structlog
from aiohttp import ClientSession
from msgspec.structs import replace
from structlog.testing import capture_logs

from harp import __version__
from harp.__main__ import main
from harp.commands.demo import Demo, Options
from harp.commands.requests import followed, line_of
from harp.logs import change_level, level
from harp.status.snapshot import RequestLine

pytestmark = pytest.mark.asyncio(loop_scope="module")

FINISHED = RequestLine(
    number=1,
    ended=0.0,
    request_id="id",
    method="GET",
    path="/exapps/a/x",
    query="",
    app="a",
    user="anna",
    address="192.0.2.1",
    peer="",
    verdict="forward",
    rule="",
    status=200,
    received=0,
    sent=61,
    seconds=4.1,
    reason="",
    refused=False,
    first_byte=4.1,
    waits={},
    request=(),
    answer=(),
)

Command = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo() -> AsyncIterator[Demo]:
    before = level()
    async with Demo(Options(0, 0, 0)) as demo:
        yield demo
    change_level(before)
    structlog.reset_defaults()


@pytest.fixture
def settings(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment in which this HaRP was started."""
    harp = demo.harp
    environment = {
        "HP_SHARED_KEY": harp.settings.shared_key,
        "NC_INSTANCE_URL": demo.nextcloud.url,
        "HP_EXAPPS_ADDRESS": f"127.0.0.1:{harp.http_ports[0]}",
        "HP_FRP_ADDRESS": f"127.0.0.1:{harp.frp_ports[0]}",
        "HP_ADMIN_ADDRESS": f"127.0.0.1:{harp.admin_ports[0]}",
        "HP_CERTS_DIR": str(harp.settings.certs),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


@pytest.fixture
def harp(settings: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Command:
    """`harp ...` with this environment: exit code, output, errors."""

    async def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()  # what was printed before
        with capture_logs():  # of the HaRP in this process, which would print them where the command prints
            code = await asyncio.to_thread(main, arguments)
        return (code, *capsys.readouterr())

    return run


async def get(demo: Demo, path: str = "/exapps/hello/public", **headers: str) -> int:
    async with ClientSession() as client:
        url = f"http://127.0.0.1:{demo.harp.http_ports[0]}{path}"
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return (await client.get(url, headers=names)).status


async def test_health_is_one_word(harp: Command) -> None:
    assert await harp("health") == (0, "healthy\n", "")


async def test_wrong_settings_are_unhealthy_in_words(harp: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HP_TIMEOUT_CLIENT", "soon")
    code, out, _ = await harp("health")
    assert code == 1
    assert out.startswith("unhealthy: HP_TIMEOUT_CLIENT: ")


async def test_apps_counts_what_each_has_served(demo: Demo, harp: Command) -> None:
    assert await get(demo) == 200
    (before,) = json.loads((await harp("apps", "--json"))[1])["apps"]
    assert await get(demo) == 200
    (after,) = json.loads((await harp("apps", "--json"))[1])["apps"]
    assert after["traffic"]["statuses"]["2xx"] == before["traffic"]["statuses"]["2xx"] + 1
    assert (after["app"], after["tunnel"]) == ("hello", "connected")
    code, out, _ = await harp("apps")
    title, line = out.splitlines()
    assert code == 0
    assert title.split() == [
        "app",
        "version",
        "address",
        "tunnel",
        "routes",
        "requests",
        "4xx",
        "5xx",
        "average",
        "sent",
        "answered",
    ]
    assert line.split()[:4] == ["hello", "1.0.0", "127.0.0.1:23000", "connected"]


async def test_tunnels_shows_the_client_and_its_port(harp: Command) -> None:
    (tunnel,) = json.loads((await harp("tunnels", "--json"))[1])["tunnels"]
    assert (tunnel["names"], tunnel["ports"], tunnel["mux"]) == (["hello"], [23000], True)
    code, out, _ = await harp("tunnels")
    assert code == 0
    assert out.splitlines()[1].split()[:3] == ["23000", "hello", "127.0.0.1"]


async def test_bans_are_shown_and_lifted(demo: Demo, harp: Command) -> None:
    assert await harp("bans") == (0, "Nobody is banned.\n", "")
    for _ in range(demo.harp.settings.bans.count):
        demo.harp.instance.strike("192.0.2.7", "a reason")
    assert await get(demo, x_forwarded_for="192.0.2.7") == 429
    code, out, _ = await harp("bans")
    assert (code, out.splitlines()[1].split()[0], "a reason" in out) == (0, "192.0.2.7", True)
    assert [ban["address"] for ban in json.loads((await harp("bans", "--json"))[1])["bans"]] == ["192.0.2.7"]
    assert await harp("bans", "lift", "192.0.2.7") == (0, "192.0.2.7 is served again.\n", "")
    assert await harp("bans", "lift", "192.0.2.7") == (1, "", "192.0.2.7 is not banned\n")
    assert await get(demo, x_forwarded_for="192.0.2.7") == 200


async def test_wrong_tokens_of_tunnel_clients_are_strikes_and_the_right_one_is_never_refused(
    demo: Demo, harp: Command
) -> None:
    url = f"http://127.0.0.1:{demo.harp.http_ports[0]}/exapps/app_api/frp_handler"
    key = demo.harp.settings.shared_key

    async def login(token: str) -> tuple[int, str]:
        body = {"content": {"client_address": "192.0.2.8:40000", "metas": {"token": token}}}
        async with (
            ClientSession(headers={"harp-shared-key": key}) as session,
            session.post(url, json=body) as response,
        ):
            return response.status, await response.text()

    for _ in range(demo.harp.settings.bans.count):
        assert (await login("wrong"))[0] == 400
    assert await login("wrong") == (200, '{"reject": true, "reject_reason": "banned"}')
    assert await get(demo, x_forwarded_for="192.0.2.8") == 429
    assert await login(key) == (200, '{"reject": false, "unchange": true}')
    assert (await harp("bans", "lift", "192.0.2.8"))[0] == 0


async def test_the_log_level_is_changed_while_harp_runs(harp: Command) -> None:
    before = json.loads((await harp("log-level"))[1])
    assert set(before) == {"level", "access"}
    assert json.loads((await harp("log-level", "error", "--access", "all"))[1]) == {"level": "error", "access": "all"}
    assert json.loads((await harp("log-level", before["level"], "--access", before["access"]))[1]) == before


async def test_the_local_engine_is_listed_before_it_was_asked(harp: Command) -> None:
    code, out, _ = await harp("engine", "list")
    assert code == 0
    assert out.splitlines()[0].split() == ["port", "engine", "API", "seen", "tunnel", "round", "trip", "note"]
    assert out.splitlines()[1].split()[0] == "24000"


async def test_an_engine_without_a_tunnel_fails_its_check_in_words(harp: Command) -> None:
    code, out, _ = await harp("engine", "check", "24001")
    assert code == 1
    assert out.startswith("24001  failing  503: ")
    assert "no tunnel" in out


async def test_an_engine_is_registered_under_the_name_of_its_client(harp: Command) -> None:
    assert await harp("engine", "register", "far", "--port", "24005") == (
        0,
        "Port 24005 belongs to the engine far.\n",
        "",
    )


async def test_the_metrics_tell_of_requests_tunnels_and_the_process(demo: Demo) -> None:
    assert await get(demo) == 200
    async with ClientSession() as client:
        answer = await client.get(f"http://127.0.0.1:{demo.harp.admin_ports[0]}/metrics")
        text = await answer.text()
    assert 'harp_requests_total{app="hello",' in text
    assert 'harp_app_tunnel_up{app="hello"} 1.0' in text
    assert __version__ in text


async def test_where_no_harp_runs_every_command_says_so(harp: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HP_ADMIN_ADDRESS", f"127.0.0.1:{closed.getsockname()[1]}")
    for command in (["apps"], ["tunnels"], ["bans"], ["log-level"], ["engine", "list"]):
        code, _, errors = await harp(*command)
        assert code == 1
        assert "does not answer" in errors
        assert "does `harp run` run here?" in errors


async def test_another_program_in_place_of_the_admin_listener_is_named(
    demo: Demo, harp: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HP_ADMIN_ADDRESS", urlsplit(demo.nextcloud.url).netloc)
    for command in (["apps"], ["engine", "list"]):
        code, _, errors = await harp(*command)
        assert code == 1
        assert "is it another program?" in errors


async def test_a_reload_takes_over_what_the_environment_says_now(demo: Demo, settings: dict[str, str]) -> None:
    with capture_logs() as logged:
        demo.harp.reload()
    assert [event["event"] for event in logged] == ["reloaded certificates and trusted proxies"]


async def test_a_reload_that_cannot_be_done_changes_nothing_and_says_why(
    demo: Demo, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HP_TIMEOUT_CLIENT", "soon")
    with capture_logs() as logged:
        demo.harp.reload()
    (event,) = logged
    assert event["event"] == "reload failed, everything stays as it was"
    assert "HP_TIMEOUT_CLIENT" in event["reason"]
    assert await get(demo) == 200


async def test_the_ending_of_the_tunnel_certificates_is_known(demo: Demo) -> None:
    url = f"http://127.0.0.1:{demo.harp.admin_ports[0]}/api/v1/snapshot"
    async with ClientSession() as client:
        snapshot = await (await client.get(url)).json()
    assert {Path(one["file"]).name for one in snapshot["certificates"]} >= {"ca.crt", "server.crt"}
    assert snapshot["process"]["version"] == __version__


async def test_requests_shows_the_last_requests_and_failures(harp: Command, demo: Demo) -> None:
    await harp("requests")
    assert await get(demo, "/exapps/hello/public?token=secret") == 200
    assert await get(demo, "/exapps/hello/user") == 403
    code, out, _ = await harp("requests")
    assert code == 0
    assert "200 GET /exapps/hello/public?token=…" in out
    assert "403 GET /exapps/hello/user" in out.partition("Last failures:")[2]
    assert "secret" not in out
    lines = json.loads((await harp("requests", "--json", "--app", "hello"))[1])
    assert {line["app"] for line in lines["recent"]} == {"hello"}


async def test_a_request_is_one_line_with_what_it_waited_for_and_why_it_failed() -> None:
    line = replace(FINISHED, status=503, refused=True, reason="no tunnel", waits={"tunnel": 4.0})
    text = " ".join(line_of(line, colour=False).split())
    assert text[9:] == "503 GET /exapps/a/x 4.1 s 61 B 192.0.2.1 anna tunnel 4000 ms no tunnel"
    assert "\033[31;1m503\033[0m" in line_of(line, colour=True)


async def test_requests_that_were_lost_are_told() -> None:
    assert followed(b"7", colour=False) == "(7 requests were too many to show)"
    assert followed(b"too many watch already", colour=False) == "(too many watch already)"
