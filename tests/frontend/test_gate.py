"""The gate: what reaches an ExApp, what is asked for first, what is refused, logged and counted."""

from __future__ import annotations

import pytest

from harp.frontend.gate import CONTROL
from harp.net.targets import ExAppAddress, ExAppTunnel
from harp.policy.exapp import Trouble
from tests.fakes.waiting import settled
from tests.frontend.gate_world import HELLO, KEY, GateWorld


async def test_a_request_reaches_its_exapp_with_the_identity_it_trusts() -> None:
    world = GateWorld()
    await world.ask("/exapps/hello/public/x?q=1", "Accept: */*\n")
    lines = world.forwarded()
    assert world.dialer.targets == [ExAppTunnel(23001, "hello")]
    assert lines[0] == "GET /public/x?q=1 HTTP/1.1"
    assert lines[1] == "host: cloud.example"
    assert {
        "ex-app-id: hello",
        "ex-app-version: 1.2.3",
        "authorization-app-api: OnRva2Vu",
        "aa-version: 32",
        "Accept: */*",
        "x-forwarded-for: 8.8.4.4",
        "x-forwarded-proto: http",
        "x-forwarded-host: cloud.example",
        "x-forwarded-prefix: /exapps/hello",
    } < set(lines)
    assert [line for line in lines if line.startswith("x-request-id: ")]
    assert len(lines) == 14
    assert world.answer().endswith(b"\r\n\r\nok")


async def test_a_direct_exapp_is_reached_by_its_host() -> None:
    world = GateWorld()
    await world.ask("/exapps/direct/public")
    assert world.dialer.targets == [ExAppAddress("direct-host", 8080)]


async def test_what_a_stranger_says_about_forwarding_is_dropped() -> None:
    world = GateWorld()
    await world.ask(
        lines="X-Forwarded-For: 1.1.1.1\nX-Forwarded-Proto: https\nX-Forwarded-Host: evil\n"
        "X-Forwarded-Prefix: /evil\nX-Request-Id: evil\nX-Real-Ip: evil\nForwarded: for=evil\nProxy: evil\n"
        "X-Forwarded-Port: evil\nX-Forwarded-Ssl: evil\nX-Forwarded-Server: evil\nX-Origin-Ip: evil\n"
        "AA-Request-Id: evil\nX_Origin_Ip: evil\n"
    )
    text = "\n".join(world.forwarded())
    assert "evil" not in text
    assert "1.1.1.1" not in text
    assert "x-forwarded-proto: http\n" in text


async def test_what_a_trusted_proxy_says_is_kept_and_added_to() -> None:
    world = GateWorld(peer="10.0.0.1", HP_TRUSTED_PROXY_IPS="10.0.0.0/8")
    await world.ask(
        lines="X-Forwarded-For: 1.1.1.1, 2.2.2.2\nX-Forwarded-Proto: https\nX-Forwarded-Host: cloud.test\n"
        "X-Forwarded-Prefix: /nc\nX-Request-Id: abc-1\nX-Real-Ip: 2.2.2.2\nForwarded: for=2.2.2.2\n"
        "X-Forwarded-Port: 443\nX-Forwarded-Ssl: on\nX-Forwarded-Server: front\nX-Origin-Ip: 2.2.2.2\nProxy: evil\n"
    )
    lines = world.forwarded()
    assert {"x-forwarded-port: 443", "x-forwarded-ssl: on", "x-forwarded-server: front"} < set(lines)
    assert "x-origin-ip: 2.2.2.2" in lines
    assert "proxy: evil" not in lines
    assert "x-forwarded-for: 1.1.1.1, 2.2.2.2, 10.0.0.1" in lines
    assert "x-forwarded-proto: https" in lines
    assert "x-forwarded-host: cloud.test" in lines
    assert "x-forwarded-prefix: /nc/exapps/hello" in lines
    assert "x-request-id: abc-1" in lines
    assert "x-real-ip: 2.2.2.2" in lines
    assert "forwarded: for=2.2.2.2" in lines


async def test_nextclouds_request_id_is_taken_over() -> None:
    world = GateWorld(peer="127.0.0.1")
    await world.ask(lines="AA-Request-Id: nc-77\n")
    assert "x-request-id: nc-77" in world.forwarded()


async def test_the_shared_key_may_name_the_request_and_the_visitor() -> None:
    world = GateWorld()
    words = "AA-Request-Id: nc-77\nX-Origin-Ip: 203.0.113.9\nX-Forwarded-Port: 1\n"
    await world.ask(lines=f"Harp-Shared-Key: {KEY}\n{words}")
    lines = world.forwarded()
    assert {"aa-request-id: nc-77", "x-origin-ip: 203.0.113.9"} < set(lines)
    assert "x-forwarded-port: 1" not in lines


async def test_forged_forwarding_values_do_not_reach_the_exapp() -> None:
    world = GateWorld(peer="127.0.0.1")
    await world.ask(lines="X-Forwarded-Proto: gopher\nX-Forwarded-Prefix: /a b\nX-Request-Id: a b\n")
    text = "\n".join(world.forwarded())
    assert "gopher" not in text
    assert "a b" not in text


async def test_a_missing_record_is_fetched_once_and_the_request_goes_on() -> None:
    world = GateWorld()
    world.instance.known = {}
    world.instance.later = {"hello": HELLO}
    await world.ask()
    assert len(world.instance.fetched) == 1
    assert world.forwarded()[0] == "GET /public HTTP/1.1"


async def test_an_unknown_exapp_is_404() -> None:
    world = GateWorld()
    assert (await world.ask("/exapps/nope/x")).startswith(b"HTTP/1.1 404 ")


async def test_a_visitor_is_asked_for_and_named_to_the_exapp() -> None:
    world = GateWorld()
    await world.ask("/exapps/hello/user", "Cookie: oc_sessionPassphrase=x\n")
    assert "authorization-app-api: YWxpY2U6dG9rZW4=" in world.forwarded()  # alice:token


async def test_a_public_route_waits_only_briefly_to_learn_who_is_calling() -> None:
    world = GateWorld()
    await world.ask("/exapps/hello/public", "Cookie: oc_sessionPassphrase=x\n")
    assert "visitor, within 2.5 s" in world.instance.fetched
    world = GateWorld()
    await world.ask("/exapps/hello/user", "Cookie: oc_sessionPassphrase=x\n")
    assert "visitor, within 2.5 s" not in world.instance.fetched


async def test_trouble_with_nextcloud_is_503_with_the_reason() -> None:
    world = GateWorld()
    world.instance.who_later = Trouble("Nextcloud is in maintenance mode", retry_after=120)
    answer = await world.ask("/exapps/hello/user", "Cookie: oc_sessionPassphrase=x\n")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 120\r\n" in answer
    assert b"maintenance mode" not in answer
    answer = await world.ask("/exapps/hello/user", f"Cookie: oc_sessionPassphrase=x\nHarp-Shared-Key: {KEY}\n")
    assert b"maintenance mode" in answer


async def test_a_client_that_leaves_while_facts_are_fetched_is_not_answered() -> None:
    world = GateWorld()
    world.instance.gate.clear()
    world.instance.known = {}
    world.instance.later = {"hello": HELLO}
    await world.ask()
    world.connection.connection_lost(None)
    world.instance.gate.set()
    await settled()
    assert world.dialer.made == []
    assert world.wire.take() == b""


async def test_a_banned_client_gets_429_or_silence() -> None:
    for action, answer in (("reply", b"HTTP/1.1 429 Too Many Requests\r\n"), ("drop", b"")):
        world = GateWorld(HP_BAN_ACTION=action)
        world.instance.ban = 42.0
        got = await world.ask()
        assert got.startswith(answer)
        assert (got == b"") == (action == "drop")
        assert world.wire.aborted == (action == "drop")
        assert world.instance.strikes == []


async def test_a_wrong_key_is_a_strike_on_the_true_client() -> None:
    world = GateWorld(peer="10.0.0.1", HP_TRUSTED_PROXY_IPS="10.0.0.1")
    answer = await world.ask("/exapps/app_api/info", "Harp-Shared-Key: wrong\nX-Forwarded-For: 6.6.6.6, 198.51.100.7\n")
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert [address for address, _ in world.instance.strikes] == ["198.51.100.7"]


async def test_a_control_call_goes_to_the_control_api_without_its_credentials() -> None:
    world = GateWorld()
    await world.ask(
        "/exapps/app_api/info", f"Harp-Shared-Key: {KEY}\nAuthorization: Basic eDp5\nDocker-Engine-Port: \nX-A: 1\n"
    )
    assert world.dialer.targets == [CONTROL]
    text = "\n".join(world.forwarded())
    assert text.startswith("GET /info HTTP/1.1")
    assert KEY not in text
    assert "Basic" not in text
    assert "X-A: 1" in text


@pytest.mark.parametrize(("status", "struck"), [(401, 1), (200, 0), (302, 0), (500, 0), (403, 0)])
async def test_a_client_error_that_the_route_lists_is_a_strike_with_that_exapp(status: int, struck: int) -> None:
    world = GateWorld()
    await world.ask("/exapps/hello/login")
    world.answer(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
    assert [key for key, _ in world.instance.strikes] == ["8.8.4.4 (hello)"] * struck


@pytest.mark.parametrize("method", ["TRACE", "TRACK"])
async def test_methods_that_echo_a_request_are_refused_to_everybody(method: str) -> None:
    for lines in ("", f"Harp-Shared-Key: {KEY}\n"):
        world = GateWorld()
        request = f"{method} /exapps/hello/public HTTP/1.1\nHost: x\n{lines}\n".replace("\n", "\r\n")
        world.connection.data_received(request.encode())
        # The parser does not know TRACK; either way nothing reaches the ExApp.
        assert world.wire.take().startswith(b"HTTP/1.1 405 " if method == "TRACE" else b"HTTP/1.1 4")
        assert world.dialer.targets == []


async def test_nextcloud_hears_the_address_of_the_client_and_strikes_count_on_its_64() -> None:
    world = GateWorld(peer="2001:db8:1:2::7")
    await world.ask("/exapps/hello/user", "Authorization: Basic eDp5\n")
    assert world.instance.fetched == ["visitor from 2001:db8:1:2::7"]
    world.answer()
    await world.ask("/exapps/app_api/info", "Harp-Shared-Key: wrong\n")
    assert world.instance.strikes[-1][0] == "2001:db8:1:2::/64"


async def test_a_private_peer_that_names_a_client_is_struck_with_it() -> None:
    world = GateWorld(peer="172.18.0.5")
    await world.ask("/exapps/app_api/info", "Harp-Shared-Key: wrong\nX-Forwarded-For: 203.0.113.9\n")
    assert [key for key, _ in world.instance.strikes] == ["203.0.113.9", "proxy 172.18.0.5"]


async def test_what_a_neighbour_says_goes_on_and_nextclouds_request_id_from_a_caller_with_the_key() -> None:
    said = "X-Forwarded-Port: 443\nX-Forwarded-SSL: on\nX-Forwarded-Server: a\nX-Origin-IP: 1.1.1.1\n"
    world = GateWorld(peer="127.0.0.1")
    await world.ask(lines=said + "AA-Request-Id: nc-77\nProxy: evil\n")
    lines = world.forwarded()
    assert {"x-forwarded-port: 443", "x-forwarded-ssl: on", "x-origin-ip: 1.1.1.1", "aa-request-id: nc-77"} < set(lines)
    assert "proxy: evil" not in lines
    for key, ids in (("", 0), (f"Harp-Shared-Key: {KEY}\n", 1)):
        world = GateWorld()
        await world.ask(lines=said + "AA-Request-Id: nc-77\n" + key)
        text = "\n".join(world.forwarded())
        assert text.count("\naa-request-id: nc-77") == ids
        assert text.count("\nx-origin-ip: 1.1.1.1") == ids
        assert "x-forwarded-server" not in text


async def test_a_status_of_a_route_without_protection_is_no_strike() -> None:
    world = GateWorld()
    await world.ask("/exapps/hello/public")
    world.answer(b"HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n")
    assert world.instance.strikes == []


PING = f"Harp-Shared-Key: {KEY}\nAuthorization: Basic eDp5\nDocker-Engine-Port: 24000\n"


@pytest.mark.parametrize("path", ["/v1.44/_ping?x=1", "/v1.44/containers/json"])
async def test_a_call_to_an_engine_goes_to_the_control_api_as_it_came_but_for_our_credentials(path: str) -> None:
    world = GateWorld()
    await world.ask(f"/exapps/app_api{path}", PING + "Cookie: a=b\nX-Registry-Auth: e30=\n")
    assert world.dialer.targets == [CONTROL]
    sent = world.forwarded()
    assert sent[0] == f"GET /engine{path} HTTP/1.1"
    assert "docker-engine-port: 24000" in sent
    assert "X-Registry-Auth: e30=" in sent
    assert KEY not in str(sent)
    assert not [line for line in sent if line.startswith(("authorization", "cookie"))]


async def test_requests_are_counted_by_exapp_and_for_those_that_are_none() -> None:
    world = GateWorld()
    await world.ask()
    world.answer()
    await world.ask("/exapps/HELLO/public")
    world.answer(b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\noh!")
    await world.ask("/exapps/nobody/x")
    await world.ask("/exapps/app_api/info", lines=f"harp-shared-key: {KEY}\n")
    world.answer()
    books = world.books
    assert {app: (traffic.requests, traffic.sent) for app, traffic in books.apps.items()} == {"hello": (2, 5)}
    assert (books.control.requests, books.others.requests) == (1, 1)
    assert books.refusals == {404: 1}


async def test_a_trace_goes_on_through_harp() -> None:
    world = GateWorld()
    parent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await world.ask(lines=f"{parent}\ntracestate: a=b\n")
    assert {parent, "tracestate: a=b"} <= set(world.forwarded())
