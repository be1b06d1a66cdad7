"""A request on its way to an ExApp, and the answer on its way back."""

from __future__ import annotations

import pytest

from harp.net.targets import Target
from harp.net.turns import SHARE
from harp.proxy.forward import LARGE, Forwarding, Hop
from harp.wire.http import CHUNKED, NO_BODY, UNTIL_CLOSE
from harp.wire.requests import RequestReader
from tests.fakes.waiting import settled, turn
from tests.proxy.forward_world import APP, BEHIND_TUNNEL, OK, TIMEOUTS, NotingClient, ProbedOffer, ProxyWorld


async def test_the_head_goes_out_and_a_whole_answer_comes_back_at_once() -> None:
    world = ProxyWorld()
    client, _ = await world.send()
    assert world.wire().take() == b"HEAD BYTES"
    world.answer(OK)
    assert (client.status, client.length, client.received, client.ended) == (200, 2, b"ok", True)


async def test_an_answer_cut_at_any_byte_is_still_one_answer() -> None:
    for cut in range(1, len(OK)):
        world = ProxyWorld()
        client, _ = await world.send()
        world.answer(OK[:cut])
        world.answer(OK[cut:])
        assert (client.status, client.received, client.ended) == (200, b"ok", True)


async def test_a_long_body_is_passed_on_as_it_comes() -> None:
    world = ProxyWorld()
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab")
    assert (client.length, client.received, client.ended) == (6, b"ab", False)
    world.answer(b"cd")
    world.answer(b"ef")
    assert (client.received, client.ended) == (b"abcdef", True)


async def test_a_chunked_body_is_decoded_with_its_trailers() -> None:
    world = ProxyWorld()
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    assert (client.length, client.received, client.ended) == (CHUNKED, b"abc", False)
    world.answer(b"2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n")
    assert (client.received, client.ended, client.trailers) == (b"abcde", True, [(b"x-sum", b"1")])
    await world.send()
    assert len(world.dialer.made) == 1


async def test_a_whole_chunked_body_is_one_piece() -> None:
    world = ProxyWorld()
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n")
    assert (client.received, client.ended) == (b"ab", True)


async def test_a_body_without_length_ends_with_its_connection() -> None:
    world = ProxyWorld()
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\n\r\nab")
    assert (client.length, client.ended) == (UNTIL_CLOSE, False)
    world.lose()
    assert (client.received, client.ended) == (b"ab", True)


@pytest.mark.parametrize("head", [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"])
async def test_an_answer_that_has_no_body_ends_with_its_head(head: bytes) -> None:
    world = ProxyWorld()
    client, _ = await world.send()
    world.answer(head)
    assert (client.length, client.ended) == (NO_BODY, True)


async def test_the_answer_to_head_keeps_its_length() -> None:
    world = ProxyWorld()
    client, _ = await world.send(b"HEAD / HTTP/1.1\r\n")
    world.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n")
    assert (client.length, client.start, client.ended) == (
        NO_BODY,
        b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n",
        True,
    )


async def test_interim_answers_are_relayed_before_the_real_one() -> None:
    world = ProxyWorld()
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK)
    assert client.interim == [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n"]
    assert client.status == 200


async def test_a_request_body_flows_when_the_connection_is_there() -> None:
    world = ProxyWorld()
    client, forwarding = await world.send(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n")
    assert client.flowing
    forwarding.body(b"ab")
    forwarding.body(b"cd")
    forwarding.body_end([])
    assert world.wire().take() == b"HEAD BYTESabcd"
    world.answer(OK)
    assert client.ended
    assert not world.wire().closed


async def test_what_has_come_of_a_body_with_the_head_leaves_with_it() -> None:
    world = ProxyWorld()
    client, forwarding = await world.send(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n", first=(b"ab", False, []))
    assert world.wire().writes == 1
    assert world.wire().take() == b"HEAD BYTESab"
    assert client.flowing
    forwarding.body(b"cd")
    forwarding.body_end([])
    assert world.wire().take() == b"cd"
    world.answer(OK)
    assert client.ended
    assert not world.wire().closed


@pytest.mark.parametrize(
    ("framing", "sent"),
    [
        (b"Content-Length: 4", b"HEAD BYTESabcd"),
        (b"Transfer-Encoding: chunked", b"HEAD BYTES4\r\nabcd\r\n0\r\nx-sum: 1\r\n\r\n"),
    ],
)
async def test_a_whole_request_is_one_write(framing: bytes, sent: bytes) -> None:
    world = ProxyWorld()
    trailers = [(b"x-sum", b"1"), (b"host", b"evil")]
    client, _ = await world.send(b"POST / HTTP/1.1\r\n" + framing + b"\r\n", first=(b"abcd", True, trailers))
    assert world.wire().writes == 1
    assert world.wire().take() == sent
    assert not client.flowing
    world.answer(OK)
    assert client.ended
    assert not world.wire().closed


@pytest.mark.parametrize(
    ("target", "length", "connections"), [(BEHIND_TUNNEL, LARGE + 1, 2), (BEHIND_TUNNEL, LARGE, 1), (APP, LARGE + 1, 1)]
)
async def test_a_large_upload_has_a_stream_of_its_own_in_a_tunnel(
    target: Target, length: int, connections: int
) -> None:
    world = ProxyWorld()
    await world.send(target=target)
    world.answer(OK)
    await world.send(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n" % length, target=target)
    assert len(world.dialer.made) == connections


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_empty_chunked_body_is_not_waited_for_a_second_time(at_once: bool) -> None:
    world = ProxyWorld()
    await world.send()
    world.answer(OK)
    put = b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
    client, forwarding = await world.send(put, first=(b"", at_once, []))
    if not at_once:
        forwarding.body_end([])
    world.lose()
    await settled()
    assert client.status == 502


async def test_a_chunked_request_body_is_coded_again() -> None:
    world = ProxyWorld()
    _, forwarding = await world.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n")
    forwarding.body(b"abc")
    forwarding.body_end([(b"x-sum", b"1"), (b"host", b"evil")])
    assert world.wire().take() == b"HEAD BYTES3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n"


async def test_back_pressure_goes_both_ways() -> None:
    world = ProxyWorld()
    client, forwarding = await world.send(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n")
    upstream = world.dialer.made[0][1]
    upstream.pause_writing()
    assert not client.flowing
    upstream.resume_writing()
    assert client.flowing
    world.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab")
    client.blocked = True
    forwarding.blocked()
    assert not world.wire().reading
    world.wait(TIMEOUTS.server + 1)  # the ExApp is not to blame
    assert client.cut_for == ""
    client.blocked = False
    forwarding.drained()
    assert world.wire().reading


async def test_an_answer_before_the_end_of_the_request_ends_the_connection() -> None:
    world = ProxyWorld()
    client, forwarding = await world.send(b"POST / HTTP/1.1\r\nContent-Length: 9999\r\n")
    forwarding.body(b"ab")
    world.answer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    assert (client.status, client.ended) == (413, True)
    assert world.wire().closed
    forwarding.body(b"cd")
    assert world.wire().take() == b"HEAD BYTESab"


async def test_a_client_that_leaves_takes_the_connection_with_it() -> None:
    world = ProxyWorld()
    _, forwarding = await world.send()
    forwarding.gone("the client went away")
    assert world.wire().aborted


async def test_a_client_that_leaves_while_connecting_leaves_nothing_behind() -> None:
    world = ProxyWorld()
    client = NotingClient()
    head = RequestReader(20).read(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    forwarding = Forwarding(world.upstreams, client, head, Hop(APP, "ExApp hello"), b"HEAD", 60.0)
    forwarding.start()
    forwarding.gone("the client went away")
    await settled()
    assert all(wire.closed for wire, _ in world.dialer.made)
    assert client.status == 0


async def test_a_large_read_pauses_its_connection_until_others_have_been_served() -> None:
    world = ProxyWorld()
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    world.answer(bytes(SHARE))
    assert not world.wire().reading
    await settled()
    assert world.wire().reading
    assert len(client.received) == SHARE


async def test_a_connection_that_waits_for_its_turn_stays_paused_when_its_client_is_slow() -> None:
    world = ProxyWorld()
    client, forwarding = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    world.answer(bytes(SHARE))
    client.blocked = True
    forwarding.blocked()
    await settled()
    assert not world.wire().reading


async def test_a_client_that_reads_on_does_not_let_its_connection_jump_the_line() -> None:
    world = ProxyWorld()
    client, forwarding = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    world.answer(bytes(SHARE))
    client.blocked = True
    forwarding.blocked()
    client.blocked = False
    forwarding.drained()
    assert not world.wire().reading
    await settled()
    assert world.wire().reading


async def test_an_answer_in_tiny_chunks_is_decoded_in_many_turns_and_whole() -> None:
    world = ProxyWorld()
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    world.answer(b"1\r\na\r\n" * 10000 + b"0\r\n\r\n")
    assert len(client.received) < 2000
    assert not world.wire().reading
    turns = 0
    while not client.ended:
        turns += 1
        await turn()
    assert turns >= 10
    assert client.received == b"a" * 10000
    assert world.wire().reading


async def test_nothing_of_an_answer_in_tiny_chunks_is_lost_when_its_connection_ends_or_its_client_is_slow() -> None:
    world = ProxyWorld()
    client, forwarding = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.blocked = True
    forwarding.blocked()
    world.answer(b"1\r\na\r\n" * 2000 + b"0\r\n\r\n")
    await settled()
    held = len(client.received)
    assert held < 2000
    await settled()
    assert len(client.received) == held
    world.dialer.made[0][1].eof_received()
    assert client.ended
    assert client.received == b"a" * 2000


async def test_a_tunnels_streams_are_not_paused_because_the_tunnel_takes_turns_itself() -> None:
    world = ProxyWorld()
    offer = world.dialer.offer = ProbedOffer()
    world.ports.claim(23001, offer)
    await world.send(target=BEHIND_TUNNEL)
    world.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    world.answer(bytes(SHARE))
    assert world.wire().reading


async def test_redirects_get_their_prefix_back_when_asked_for() -> None:
    world = ProxyWorld()
    client, _ = await world.send(prefix=b"/exapps/hello")
    world.answer(
        b"HTTP/1.1 307 T\r\nLocation: /mcp/\r\nContent-Location: /exapps/hello/x\r\nX: /y\r\nContent-Length: 0\r\n\r\n"
    )
    lines = b"Location: /exapps/hello/mcp/\r\nContent-Location: /exapps/hello/x\r\nX: /y\r\nContent-Length: 0\r\n"
    assert client.start == b"HTTP/1.1 307 T\r\n" + lines


@pytest.mark.parametrize("location", [b"https://elsewhere/x", b"//elsewhere/x", b"relative", b"/exapps/hello?x"])
async def test_other_locations_are_left_alone(location: bytes) -> None:
    world = ProxyWorld()
    client, _ = await world.send(prefix=b"/exapps/hello")
    world.answer(b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n")
    assert b"\r\nLocation: " + location + b"\r\n" in client.start


async def test_a_body_waits_while_its_request_is_sent_again() -> None:
    world = ProxyWorld()
    await world.send()
    world.answer(OK)
    client, forwarding = await world.send(b"PUT / HTTP/1.1\r\nContent-Length: 4\r\n")
    assert client.flowing
    world.lose()
    assert not client.flowing
    await settled()
    assert client.flowing
    forwarding.body(b"abcd")
    assert world.wire().take() == b"HEAD BYTESabcd"


async def test_an_exapp_that_answers_without_reading_the_request_is_not_waited_for() -> None:
    world = ProxyWorld()
    _, forwarding = await world.send(b"POST / HTTP/1.1\r\nContent-Length: 9999\r\n")
    forwarding.body(b"ab")
    world.wire().unsent = 2
    world.answer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    assert world.wire().aborted


async def test_interim_answers_wait_for_a_client_that_does_not_read() -> None:
    world = ProxyWorld()
    client, forwarding = await world.send()
    world.answer(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    client.blocked = True
    forwarding.blocked()
    assert not world.wire().reading
    client.blocked = False
    forwarding.drained()
    assert world.wire().reading
    world.wait(TIMEOUTS.response + 1)
    assert client.status == 504


@pytest.mark.parametrize(("target", "what"), [(APP, "connect"), (BEHIND_TUNNEL, "tunnel")])
async def test_who_had_to_wait_for_a_connection_is_told_and_who_finds_one_is_not(target: Target, what: str) -> None:
    world = ProxyWorld()
    first, _ = await world.send(target=target)
    assert first.waits == [what]
    world.answer(OK)
    second, _ = await world.send(target=target)
    assert second.waits == []
