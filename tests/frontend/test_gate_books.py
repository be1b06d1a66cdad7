"""What a gate writes into the access log and the log, and the id that a request has in them."""

from __future__ import annotations

import msgspec
from structlog.testing import capture_logs

from harp.errors import Unreachable
from harp.policy.exapp import Trouble
from tests.fakes.waiting import settled
from tests.frontend.gate_world import OK, GateWorld


async def test_the_access_log_tells_what_happened_and_no_secret() -> None:
    world = GateWorld()
    await world.ask("/exapps/hello/public?token=secret", "Cookie: oc_sessionPassphrase=secret\n")
    world.answer()
    await world.ask("/exapps/nope/x")
    await world.gate.close()
    lines = [msgspec.json.decode(line) for line in world.log.getvalue().splitlines()]
    assert [(line["status"], line["path"], line["app"], line["user"]) for line in lines] == [
        (200, "/exapps/hello/public", "hello", "alice"),
        (404, "/exapps/nope/x", "", ""),
    ]
    assert b"secret" not in world.log.getvalue()
    assert all(line["reason"] for line in lines)


async def test_the_access_log_tells_why_an_allowed_request_was_refused_all_the_same() -> None:
    world = GateWorld()
    world.dialer.errors = [Unreachable("127.0.0.1:23001: Connection refused")]
    assert b"cannot be reached" in await world.ask()
    await world.gate.close()
    (line,) = [msgspec.json.decode(line) for line in world.log.getvalue().splitlines()]
    assert line["status"] == 503
    assert line["reason"] == "ExApp hello cannot be reached: 127.0.0.1:23001: Connection refused"


async def test_an_answer_has_the_id_that_the_exapp_got() -> None:
    world = GateWorld()
    await world.ask()
    (line,) = [line for line in world.forwarded() if line.startswith("x-request-id: ")]
    assert world.answer() == OK.replace(b"\r\n\r\n", f"\r\n{line}\r\n\r\n".encode())


async def test_the_id_replaces_what_the_exapp_says_about_ids() -> None:
    world = GateWorld(peer="10.0.0.1", HP_TRUSTED_PROXY_IPS="10.0.0.0/8")
    await world.ask(lines="X-Request-Id: mine-1\n")
    told = world.answer(OK.replace(b"\r\n\r\n", b"\r\nX-Request-ID: its-own\r\nx-request-id: b\r\nA: b\r\n\r\n"))
    assert told == OK.replace(b"\r\n\r\n", b"\r\nA: b\r\nx-request-id: mine-1\r\n\r\n")


async def test_a_switch_of_protocols_has_the_id_as_well() -> None:
    world = GateWorld(peer="10.0.0.1", HP_TRUSTED_PROXY_IPS="10.0.0.0/8")
    await world.ask(lines="X-Request-Id: mine-1\nConnection: upgrade\nUpgrade: websocket\n")
    switched = world.answer(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert b"\r\nx-request-id: mine-1\r\n" in switched


async def test_an_access_line_names_the_address_that_a_ban_would_name() -> None:
    world = GateWorld(peer="127.0.0.1")
    await world.ask("/exapps/hello/user", lines="X-Forwarded-For: 192.0.2.7\n")
    (line,) = await world.access_lines()
    assert (line["address"], line["peer"], line["counted"]) == ("127.0.0.1", "127.0.0.1", "192.0.2.7")
    assert line["verdict"] == "refuse"


async def test_an_access_log_of_errors_leaves_out_what_went_well() -> None:
    world = GateWorld(access="errors")
    await world.ask()
    world.answer()
    await world.ask("/exapps/hello/user")
    assert [line["status"] for line in await world.access_lines()] == [403]


async def test_an_access_log_can_be_switched_off() -> None:
    world = GateWorld(access="off")
    await world.ask("/exapps/hello/user")
    assert await world.access_lines() == []


async def test_the_access_log_counts_the_bytes_of_both_bodies() -> None:
    world = GateWorld()
    post = b"POST /exapps/hello/public HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde"
    world.connection.data_received(post)
    await settled()
    world.answer()
    (line,) = await world.access_lines()
    assert (line["received"], line["sent"]) == (5, 2)


async def test_an_exapp_that_is_away_is_one_warning_however_many_ask_for_it() -> None:
    world = GateWorld()
    world.dialer.errors = [Unreachable("no tunnel is connected for port 23001")] * 3
    with capture_logs() as events:
        for _ in range(3):
            assert b"503 Service Unavailable: the app or Nextcloud" in await world.ask()
    (warning,) = [event for event in events if event["log_level"] == "warning"]
    assert warning["event"] == "request not served"
    assert warning["reason"] == "ExApp hello cannot be reached: no tunnel is connected for port 23001"
    assert (warning["status"], warning["app"]) == (503, "hello")


async def test_trouble_with_nextcloud_is_a_warning() -> None:
    world = GateWorld()
    world.instance.known["hello"] = Trouble("Nextcloud cannot be reached")
    with capture_logs() as events:
        await world.ask()
    (warning,) = [event for event in events if event["log_level"] == "warning"]
    assert (warning["event"], warning["reason"]) == ("request not served", "Nextcloud cannot be reached")


async def test_a_wrong_shared_key_is_a_warning_with_the_fix_and_without_the_key() -> None:
    world = GateWorld()
    with capture_logs() as events:
        for _ in range(2):
            assert b" 401 " in await world.ask("/exapps/app_api/info", lines="harp-shared-key: not the right one\n")
    (warning,) = [event for event in events if event["log_level"] == "warning"]
    assert (warning["event"], warning["source"]) == ("shared key refused", "8.8.4.4")
    assert "HP_SHARED_KEY" in warning["fix"]
    assert "not the right one" not in str(events)


async def test_what_strangers_do_wrong_is_no_warning() -> None:
    world = GateWorld()
    with capture_logs() as events:
        await world.ask("/exapps/app_api/info")
        await world.ask("/exapps/nobody/x")
        await world.ask("/exapps/hello/user")
    assert [event for event in events if event["log_level"] == "warning"] == []


async def test_the_access_log_tells_what_a_request_waited_for() -> None:
    world = GateWorld()
    world.instance.later["hello"] = world.instance.known.pop("hello")
    await world.ask()
    world.answer()
    world.instance.known |= world.instance.later
    await world.ask()
    world.answer()
    first, second = await world.access_lines()
    assert set(first["waits"]) == {"nextcloud", "tunnel"}
    assert second["waits"] == {}, "what Nextcloud said is known, and a connection is there"
    assert 0 <= first["waits"]["nextcloud"] <= first["first_byte"] <= first["seconds"]


async def test_the_first_byte_of_an_answer_in_pieces_comes_before_its_end() -> None:
    world = GateWorld()
    await world.ask()
    world.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
    await settled()
    world.answer(b"ok")
    (line,) = await world.access_lines()
    assert 0 < line["first_byte"] < line["seconds"]
    assert sum(world.books.apps["hello"].first_bytes.buckets) == 1


async def test_the_head_of_an_answer_is_kept_while_somebody_inspects_requests() -> None:
    world = GateWorld()
    seen: list[bytes] = []
    world.books.watcher = lambda exchange, seconds: seen.append(exchange.answer)
    for inspected in (False, True):
        world.gate.inspected = inspected
        await world.ask()
        world.answer()
    assert [b"200 OK" in answer for answer in seen] == [False, True]


async def test_a_request_that_is_not_over_is_known_to_its_connection() -> None:
    world = GateWorld()
    assert world.connection.running is None
    await world.ask()
    running = world.connection.running
    assert running is not None
    assert running.head is not None
    assert running.head.path == b"/exapps/hello/public"
    world.answer()
    assert world.connection.running is None
